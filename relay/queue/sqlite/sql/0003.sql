-- The third layout: what has to be known over restarts, and fairness between clients.

-- `value` is what there is to know besides the moment, as JSON or a word; '' where the moment is all.
ALTER TABLE memory ADD COLUMN value TEXT NOT NULL DEFAULT '';

-- Where more is due than may leave, clients take turns: the oldest of each is found without looking at the others'.
CREATE INDEX due_by_client ON entry (route, priority, client, id) WHERE place = 0;
