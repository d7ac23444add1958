-- What a dead relay left in its queue; a spool file 0Z6J1K8G5007.eml of 300 octets lies beside it.

INSERT INTO entry (
    id, queue_id, place, route, priority, next_attempt_at, expires_at, attempts, session_code, kind, size, received_at,
    spool_file, listener, client, helo, protocol, tls, user, reverse_path, smtputf8, ret, envid, because, set_aside
) VALUES
    (3, '0Z6J1K8G0007', 0, 'default', 1, 1772452800000000, 1772884800000000, 0, 0, 'mail', 54, 1772452800000000, NULL,
     'legacy', '192.0.2.7', 'imuis', 'SMTP', NULL, NULL, 'jan@example.nl', 0, NULL, NULL, '["default"]', NULL),
    (4, '0Z6J1K8G1007', 1, 'default', 1, 1772456400000000, 1772884800000000, 2, 0, 'mail', 54, 1772452800000000, NULL,
     'legacy', '192.0.2.7', 'imuis', 'ESMTPSA', 'TLSv1.3', 'jan', 'jan@example.nl', 1, 'hdrs', 'QQ31', '["a","b"]', NULL),
    (6, '0Z6J1K8G2007', 2, 'vendor', 0, 1772452800000000, 1772884800000000, 1, 1, 'mail', 54, 1772452800000000, NULL,
     'legacy', '192.0.2.7', 'imuis', 'SMTP', NULL, NULL, 'jan@example.nl', 0, NULL, NULL, '["codes"]', NULL),
    (7, '0Z6J1K8G3007', 3, 'default', 1, 1772452800000000, 1772884800000000, 1, 0, 'mail', 54, 1772452800000000, NULL,
     'legacy', '192.0.2.7', 'imuis', 'SMTP', NULL, NULL, NULL, 0, NULL, NULL, '["default"]', NULL),
    (8, '0Z6J1K8G4007', 4, 'default', 1, 1772452800000000, 1772884800000000, 0, 0, 'fax', 54, 1772452800000000, NULL,
     'legacy', '192.0.2.7', 'imuis', 'SMTP', NULL, NULL, 'jan@example.nl', 0, NULL, NULL, '["default"]',
     'a column makes no sense (ValueError)'),
    (9, '0Z6J1K8G5007', 0, 'default', 1, 1772452800000000, 1772884800000000, 0, 0, 'bounce', 300, 1772452800000000,
     '0Z6J1K8G5007.eml', 'legacy', '192.0.2.7', 'imuis', 'SMTP', NULL, NULL, NULL, 0, NULL, NULL, '["default"]', NULL);

INSERT INTO content
SELECT id, zeroblob(CASE session_code WHEN 1 THEN 4096 ELSE 0 END), 41,
       CAST(CASE id WHEN 9 THEN 'From: jan@example.nl' || x'0D0A' || 'Subject: Factuur' || x'0D0A0D0A'
            ELSE 'From: jan@example.nl' || x'0D0A' || 'Subject: Factuur' || x'0D0A0D0A' || 'Goedemiddag' || x'0D0A' END
            AS BLOB)
FROM entry;
UPDATE content SET head_length = 42;
UPDATE entry SET size = (SELECT length(body) FROM content WHERE entry = id) WHERE id <> 9;

INSERT INTO recipient (entry, n, address, notify, orcpt, state, last_reply, in_doubt, in_doubt_at) VALUES
    (3, 0, 'piet@example.com', NULL, NULL, 'pending', '', 0, ''),
    (4, 0, 'a@x.nl', 'delay,success', 'rfc822;a@x.nl', 'delivered', '250 ok', 0, ''),
    (4, 1, 'b@x.nl', '', NULL, 'pending', '451 4.7.1 later', 1, 'own'),
    (4, 2, 'c@x.nl', NULL, NULL, 'held', '', 0, ''),
    (6, 0, 'els@x.nl', NULL, NULL, 'pending', '', 0, ''),
    (7, 0, 'held@x.nl', NULL, NULL, 'held', '', 0, ''),
    (8, 0, 'fax@x.nl', NULL, NULL, 'pending', '', 0, ''),
    (9, 0, 'postmaster@', NULL, NULL, 'pending', '', 0, '');
