-- Whoever changes or removes messages, the ends of conversations kept in memory must be read again.
CREATE TRIGGER messages_changed AFTER UPDATE OF content, position, part, role ON messages
BEGIN
    UPDATE sessions SET revision = revision + 1 WHERE id = NEW.session_id;
END;
CREATE TRIGGER messages_removed AFTER DELETE ON messages
BEGIN
    UPDATE sessions SET revision = revision + 1 WHERE id = OLD.session_id;
END;
