-- Messages that a fork took along were said elsewhere: they are counted apart, and in no statistics.
ALTER TABLE sessions ADD COLUMN copied_count BIGINT NOT NULL DEFAULT 0;
UPDATE sessions SET copied_count =
    (SELECT COUNT(*) FROM messages m WHERE m.session_id = sessions.id AND m.turn_id IS NULL)
WHERE forked_from IS NOT NULL;
UPDATE sessions SET message_count = message_count - copied_count WHERE copied_count > 0;
