-- Whoever changes or removes messages, the ends of conversations kept in memory must be read again.
CREATE FUNCTION messages_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sessions SET revision = revision + 1 WHERE id = OLD.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_changed AFTER UPDATE OF content, position, part, role ON messages
    FOR EACH ROW EXECUTE FUNCTION messages_changed();
CREATE TRIGGER messages_removed AFTER DELETE ON messages
    FOR EACH ROW EXECUTE FUNCTION messages_changed();
