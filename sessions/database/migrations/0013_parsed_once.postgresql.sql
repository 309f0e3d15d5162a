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

CREATE OR REPLACE FUNCTION palaver_bucket(response_ms BIGINT) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    bounds CONSTANT BIGINT[] := CAST('{
        0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,18,20,22,24,26,29,32,35,38,42,46,51,56,62,68,75,82,90,99,109,120,132,145,160,
        176,194,213,234,257,283,311,342,376,414,455,501,551,606,667,734,807,888,977,1075,1182,1300,1430,1573,1730,1903,2093,
        2302,2532,2785,3064,3370,3707,4078,4486,4935,5428,5971,6568,7225,7948,8743,9617,10579,11637,12801,14081,15489,17038,
        18742,20616,22678,24946,27441,30185,33204,36524,40176,44194,48613,53474,58821,64703,71173,78290,86119,94731,104204,
        114624,126086,138695,152564,167820,184602,203062,223368,245705,270276,297304,327034,359737,395711,435282,478810,
        526691,579360,637296,701026,771129,848242,933066,1026373,1129010,1241911,1366102,1502712,1652983,1818281,2000109,
        2200120,2420132,2662145,2928360,3221196,3543316,3897648,4287413,4716154,5187769,5706546,6277201,6904921,7595413,
        8354954,9190449,10109494,11120443,12232487,13455736,14801310,16281441,17909585,19700544,21670598,23837658,26221424,
        28843566,31727923,34900715,38390786,42229865,46452852,51098137,56207951,61828746,68011621,74812783,82294061,90523467,
        99575814,109533395,120486735,132535409,145788950,160367845,176404630,194045093,213449602,234794562,258274018,
        284101420,312511562,343762718,378138990,415952889,457548178,503302996,553633296,608996626
    }' AS BIGINT[]);
BEGIN
    RETURN COALESCE(bounds[width_bucket(response_ms, bounds)], -1);
END
$$;

DROP TRIGGER statistics_session_counted ON sessions;
DROP TRIGGER statistics_session_turned ON sessions;
DROP TRIGGER statistics_session_moved ON sessions;
DROP FUNCTION palaver_statistics_session_counted();
DROP FUNCTION palaver_statistics_session_turned();
DROP FUNCTION palaver_statistics_session_moved();

CREATE FUNCTION palaver_statistics_session_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    -- It became another's, or was deleted or brought back: its part is taken away there and added here.
    IF OLD.platform <> NEW.platform OR COALESCE(OLD.persona, '') <> COALESCE(NEW.persona, '')
        OR COALESCE(OLD.person_id, '') <> COALESCE(NEW.person_id, '')
        OR (COALESCE(OLD.end_reason, '') = 'deleted') <> (COALESCE(NEW.end_reason, '') = 'deleted') THEN
        INSERT INTO statistics_changes (platform, persona, person_id, messages, tool_calls, input_tokens, output_tokens, duration_ms,
            fact, word, amount)
        SELECT OLD.platform, COALESCE(OLD.persona, ''), COALESCE(OLD.person_id, ''), -OLD.message_count,
            -OLD.tool_call_count, -OLD.input_tokens,
            -OLD.output_tokens, -(OLD.last_activity_at - OLD.created_at), 'sessions', OLD.status, -1
        WHERE (OLD.end_reason IS NULL OR OLD.end_reason <> 'deleted');
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, bucket, amount)
        SELECT OLD.platform, COALESCE(OLD.persona, ''), COALESCE(OLD.person_id, ''), 'turns', t.status,
            palaver_bucket(t.finished_at - t.queued_at), -COUNT(*)
        FROM turns t WHERE t.session_id = OLD.id AND t.status NOT IN ('queued', 'running') AND (OLD.end_reason IS NULL
            OR OLD.end_reason <> 'deleted') GROUP BY 5, 6;
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
        SELECT OLD.platform, COALESCE(OLD.persona, ''), COALESCE(OLD.person_id, ''), 'errors', e.kind, -COUNT(*)
        FROM errors e WHERE e.session_id = OLD.id AND (OLD.end_reason IS NULL OR OLD.end_reason <> 'deleted') GROUP BY 5;
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
        SELECT OLD.platform, COALESCE(OLD.persona, ''), COALESCE(OLD.person_id, ''), 'errors', 'tool', -COUNT(*)
        FROM tool_calls c WHERE c.session_id = OLD.id AND c.outcome = 'error' AND (OLD.end_reason IS NULL
            OR OLD.end_reason <> 'deleted') HAVING COUNT(*) > 0;
        INSERT INTO statistics_changes (platform, persona, person_id, messages, tool_calls, input_tokens, output_tokens, duration_ms,
            fact, word, amount)
        SELECT NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''), NEW.message_count,
            NEW.tool_call_count, NEW.input_tokens,
            NEW.output_tokens, (NEW.last_activity_at - NEW.created_at), 'sessions', NEW.status, 1
        WHERE (NEW.end_reason IS NULL OR NEW.end_reason <> 'deleted');
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, bucket, amount)
        SELECT NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''), 'turns', t.status,
            palaver_bucket(t.finished_at - t.queued_at), COUNT(*)
        FROM turns t WHERE t.session_id = NEW.id AND t.status NOT IN ('queued', 'running') AND (NEW.end_reason IS NULL
            OR NEW.end_reason <> 'deleted') GROUP BY 5, 6;
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
        SELECT NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''), 'errors', e.kind, COUNT(*)
        FROM errors e WHERE e.session_id = NEW.id AND (NEW.end_reason IS NULL OR NEW.end_reason <> 'deleted') GROUP BY 5;
        INSERT INTO statistics_changes (platform, persona, person_id, fact, word, amount)
        SELECT NEW.platform, COALESCE(NEW.persona, ''), COALESCE(NEW.person_id, ''), 'errors', 'tool', COUNT(*)
        FROM tool_calls c WHERE c.session_id = NEW.id AND c.outcome = 'error' AND (NEW.end_reason IS NULL
            OR NEW.end_reason <> 'deleted') HAVING COUNT(*) > 0;
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
