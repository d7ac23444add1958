// nodemailer, as a web application uses it.
const nodemailer = require('nodemailer');

const transport = nodemailer.createTransport({
  host: '127.0.0.1',
  port: Number(process.env.PORT),
  secure: false,
  auth: { user: 'portaal', pass: 'geheim' },
});
transport
  .sendMail({
    from: '"Jan Müller" <jan@example.nl>',
    to: 'piet@example.org',
    subject: process.env.SUBJECT,
    text: 'Bijgaand de factuur.\n.\n..\nMet vriendelijke groet, één',
    attachments: [{ filename: 'factuur.pdf', path: process.env.ATTACHMENT }],
  })
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
