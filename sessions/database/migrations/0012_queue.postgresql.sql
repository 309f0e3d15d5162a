-- The queue of turns. pgmq comes as plain SQL from the package of that name, unless the database has it already.
$PGMQ;

-- One queue for each schema: several Palavers may share a database.
DO $$
DECLARE
    name text := CASE WHEN current_schema() = 'public' THEN 'turns' ELSE 'turns_' || current_schema() END;
    queue text := pgmq.format_table_name(name, 'q');
BEGIN
    PERFORM pgmq.create(name);
    -- A session's head is found by this; the order of the numbers is the order of the lane.
    EXECUTE format('CREATE INDEX %I ON pgmq.%I ((headers->>''x-pgmq-group''), msg_id)', queue || '_lane', queue);
    EXECUTE format('ALTER TABLE pgmq.%I SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,'
        ' autovacuum_vacuum_threshold = 500)', queue);
    EXECUTE format('CREATE VIEW turn_queue AS SELECT msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers FROM pgmq.%I', queue);
    EXECUTE format('CREATE VIEW dead_turns AS SELECT msg_id, read_ct, enqueued_at, archived_at, message, headers FROM pgmq.%I',
        pgmq.format_table_name(name, 'a'));
    EXECUTE format('CREATE FUNCTION turn_queue_name() RETURNS text LANGUAGE sql IMMUTABLE AS %L', format('SELECT %L::text', name));
END
$$;

-- What waits already, each lane in its order.
INSERT INTO turn_queue (vt, message, headers)
SELECT clock_timestamp(), jsonb_build_object('turn', id), jsonb_build_object('x-pgmq-group', session_id)
FROM (
    SELECT id, session_id, position, MAX(queued_at) OVER (PARTITION BY session_id ORDER BY position) AS since
    FROM turns WHERE status IN ('queued', 'running')
) lanes
ORDER BY since, session_id, position;
