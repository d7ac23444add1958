// JavaMail, as bookkeeping software uses it.
import java.util.Properties;
import javax.activation.DataHandler;
import javax.activation.FileDataSource;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;

public class Mail {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("mail.smtp.host", "127.0.0.1");
        properties.put("mail.smtp.port", System.getenv("PORT"));
        properties.put("mail.smtp.auth", "true");
        properties.put("mail.smtp.dsn.notify", "FAILURE,DELAY");
        MimeMessage message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress("jan@example.nl", "Jan M\u00fcller", "UTF-8"));
        message.setRecipients(Message.RecipientType.TO, "piet@example.org");
        message.setSubject(System.getenv("SUBJECT"), "UTF-8");
        message.setSentDate(new java.util.Date());
        MimeBodyPart text = new MimeBodyPart();
        text.setText("Bijgaand de factuur.\n.\n..\nMet vriendelijke groet, \u00e9\u00e9n", "UTF-8");
        MimeBodyPart attachment = new MimeBodyPart();
        attachment.setDataHandler(new DataHandler(new FileDataSource(System.getenv("ATTACHMENT"))));
        attachment.setFileName("factuur.pdf");
        MimeMultipart parts = new MimeMultipart();
        parts.addBodyPart(text);
        parts.addBodyPart(attachment);
        message.setContent(parts);
        Transport.send(message, "administratie", "geheim");
    }
}
