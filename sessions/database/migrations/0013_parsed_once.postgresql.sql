-- The same sums and the same words, without what the server had to parse anew for every statement: the condition of a trigger, the
-- body of a function in the language SQL that makes a column, a list that is text in a variable's declaration. What PL/pgSQL has
-- read once in a connection it keeps.

-- The schema is named in it, because pg_restore makes the column with a search path that is empty.
DO $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION palaver_words(content TEXT) RETURNS TSVECTOR LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS %L',
        format('BEGIN RETURN to_tsvector(''pg_catalog.simple'', %I.palaver_fold(content)); END', current_schema()));
END
$$;

DO $$
BEGIN
    EXECUTE replace(replace(pg_get_functiondef(CAST('palaver_bucket(bigint)' AS regprocedure)),
        ':= ''{', ':= CAST(''{'), '}'';', '}'' AS BIGINT[]);');
END
$$;

DROP TRIGGER statistics_session_counted ON sessions;
DROP TRIGGER statistics_session_turned ON sessions;
DROP TRIGGER statistics_session_moved ON sessions;
DROP FUNCTION palaver_statistics_session_counted();
DROP FUNCTION palaver_statistics_session_turned();
DROP FUNCTION palaver_statistics_session_moved();

-- A whole session with its turns and errors, added or (-1) taken away.
CREATE FUNCTION palaver_statistics_session(whole sessions, sign BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF whole.end_reason = 'deleted' THEN
        RETURN;
    END IF;
    INSERT INTO statistics_changes (platform, persona, person_id, messages, tool_calls, input_tokens, output_tokens, duration_ms,
        fact, word, amount)
    VALUES (whole.platform, COALESCE(whole.persona, ''), COALESCE(whole.person_id, ''), sign * whole.message_count,
        sign * whole.tool_call_count, sign * whole.input_tokens, sign * whole.output_tokens,
        sign * (whole.last_activity_at - whole.created_at), 'sessions', whole.status, sign);
    INSERT INTO statistics_changes (platform, persona, person_id, fact, word, bucket, amount)
    SELECT whole.platform, COALESCE(whole.persona, ''), COALESCE(whole.person_id, ''), f.fact, f.word, f.bucket, sign * COUNT(*)
    FROM (
        SELECT 'turns' AS fact, t.status AS word, palaver_bucket(t.finished_at - t.queued_at) AS bucket
        FROM turns t WHERE t.session_id = whole.id AND t.status NOT IN ('queued', 'running')
        UNION ALL SELECT 'errors', e.kind, 0 FROM errors e WHERE e.session_id = whole.id
        UNION ALL SELECT 'errors', 'tool', 0 FROM tool_calls c WHERE c.session_id = whole.id AND c.outcome = 'error'
    ) f
    GROUP BY f.fact, f.word, f.bucket;
END
$$;

CREATE FUNCTION palaver_statistics_session_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    -- It became another's, or was deleted or brought back: its part is taken away there and added here.
    IF OLD.platform <> NEW.platform OR COALESCE(OLD.persona, '') <> COALESCE(NEW.persona, '')
        OR COALESCE(OLD.person_id, '') <> COALESCE(NEW.person_id, '')
        OR (COALESCE(OLD.end_reason, '') = 'deleted') <> (COALESCE(NEW.end_reason, '') = 'deleted') THEN
        PERFORM palaver_statistics_session(OLD, -1);
        PERFORM palaver_statistics_session(NEW, 1);
    ELSIF COALESCE(NEW.end_reason, '') <> 'deleted' THEN
        IF NEW.message_count <> OLD.message_count OR NEW.tool_call_count <> OLD.tool_call_count
            OR NEW.last_activity_at <> OLD.last_activity_at OR NEW.input_tokens <> OLD.input_tokens
            OR NEW.output_tokens <> OLD.output_tokens THEN
            INSERT INTO statistics_changes (platform, persona, person_id, hour, messages, tool_calls, input_tokens, output_tokens, duration_ms)
            VALUES (NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''),
                CASE WHEN NEW.message_count > OLD.message_count THEN NEW.last_activity_at - NEW.last_activity_at % 3600000 END,
                NEW.message_count - OLD.message_count, NEW.tool_call_count - OLD.tool_call_count,
                NEW.input_tokens - OLD.input_tokens, NEW.output_tokens - OLD.output_tokens,
                (NEW.last_activity_at - NEW.created_at) - (OLD.last_activity_at - OLD.created_at));
        END IF;
        IF NEW.status <> OLD.status THEN
            INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
            VALUES (OLD.platform, COALESCE(OLD.persona, ''), COALESCE(OLD.person_id, ''), 'sessions', OLD.status, -1);
            INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
            VALUES (NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''), 'sessions', NEW.status, 1);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER statistics_session_changed AFTER UPDATE ON sessions
    FOR EACH ROW EXECUTE FUNCTION palaver_statistics_session_changed();

CREATE OR REPLACE FUNCTION palaver_statistics_session_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM palaver_statistics_session(OLD, -1);
    RETURN OLD;
END
$$;

DROP TRIGGER statistics_turn_inserted ON turns;
DROP TRIGGER statistics_turn_ended ON turns;
DROP TRIGGER statistics_turn_corrected ON turns;
DROP FUNCTION palaver_statistics_turn_inserted();
DROP FUNCTION palaver_statistics_turn_ended();
DROP FUNCTION palaver_statistics_turn_corrected();

CREATE FUNCTION palaver_statistics_turn_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    was_over BOOLEAN := TG_OP = 'UPDATE' AND OLD.status NOT IN ('queued', 'running');
    is_over BOOLEAN := NEW.status NOT IN ('queued', 'running');
BEGIN
    IF was_over AND OLD.status = NEW.status AND OLD.queued_at = NEW.queued_at AND OLD.finished_at = NEW.finished_at THEN
        RETURN NULL;
    END IF;
    IF was_over THEN
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, bucket, amount)
        SELECT s.platform, COALESCE(s.persona, ''), COALESCE(s.person_id, ''), 'turns', OLD.status,
            palaver_bucket(OLD.finished_at - OLD.queued_at), -1
        FROM sessions s WHERE s.id = OLD.session_id AND (s.end_reason IS NULL OR s.end_reason <> 'deleted');
    END IF;
    IF is_over THEN
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, bucket, amount)
        SELECT s.platform, COALESCE(s.persona, ''), COALESCE(s.person_id, ''), 'turns', NEW.status,
            palaver_bucket(NEW.finished_at - NEW.queued_at), 1
        FROM sessions s WHERE s.id = NEW.session_id AND (s.end_reason IS NULL OR s.end_reason <> 'deleted');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER statistics_turn_changed AFTER INSERT OR UPDATE ON turns
    FOR EACH ROW EXECUTE FUNCTION palaver_statistics_turn_changed();
