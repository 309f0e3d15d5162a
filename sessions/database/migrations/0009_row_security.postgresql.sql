-- Rows that hold what people said, and who they are to us, show themselves only to a transaction that says on whose behalf it reads.
-- The owner of the tables (the daemon's own work) is not held to this; everybody else is, also a role that was given SELECT for
-- another purpose. What a scope means stands once more here, apart from sessions/scope.py, so that neither can go wrong alone.
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON sessions FOR SELECT USING (
    (end_reason IS NULL OR end_reason <> 'deleted')
    AND (
        person_id = NULLIF(current_setting('palaver.scope_person', true), '')
        OR id = NULLIF(current_setting('palaver.scope_session', true), '')
        OR (
            person_id IS NULL
            AND account = NULLIF(current_setting('palaver.scope_account', true), '')
            AND channel = NULLIF(current_setting('palaver.scope_channel', true), '')
            -- '=' stands before a thread's name, so that no thread and one without a name are two things
            AND thread IS NOT DISTINCT FROM substr(NULLIF(current_setting('palaver.scope_thread', true), ''), 2)
        )
    )
);

-- What belongs to a session is seen with it: the policy above holds inside these, too.
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON messages FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = messages.session_id));
ALTER TABLE summaries ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON summaries FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = summaries.session_id));
ALTER TABLE turns ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON turns FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = turns.session_id));
ALTER TABLE tool_calls ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON tool_calls FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = tool_calls.session_id));
ALTER TABLE errors ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON errors FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = errors.session_id));
ALTER TABLE session_variables ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON session_variables FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = session_variables.session_id));
ALTER TABLE session_links ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON session_links FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = session_links.session_id));
ALTER TABLE session_tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON session_tasks FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = session_tasks.session_id));
ALTER TABLE session_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON session_events FOR SELECT
    USING (EXISTS (SELECT 1 FROM sessions s WHERE s.id = session_events.session_id));
ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON steps FOR SELECT
    USING (EXISTS (SELECT 1 FROM turns t WHERE t.id = steps.turn_id));
ALTER TABLE message_vectors ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON message_vectors FOR SELECT
    USING (EXISTS (SELECT 1 FROM messages m WHERE m.id = message_vectors.message_id));

-- A person's own sums; those of a platform, a persona and of all are the operator's.
ALTER TABLE statistics_totals ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON statistics_totals FOR SELECT
    USING (dimension = 'person' AND subject = NULLIF(current_setting('palaver.scope_person', true), ''));
ALTER TABLE statistics_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON statistics_counts FOR SELECT
    USING (dimension = 'person' AND subject = NULLIF(current_setting('palaver.scope_person', true), ''));
ALTER TABLE statistics_hours ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON statistics_hours FOR SELECT
    USING (dimension = 'person' AND subject = NULLIF(current_setting('palaver.scope_person', true), ''));
ALTER TABLE statistics_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY palaver_scope ON statistics_changes FOR SELECT
    USING (person_id = NULLIF(current_setting('palaver.scope_person', true), ''));

-- Nobody but the owner has business in these, whatever is granted.
ALTER TABLE persons ENABLE ROW LEVEL SECURITY;
ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE quarantine ENABLE ROW LEVEL SECURITY;
ALTER TABLE questions ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE erasures ENABLE ROW LEVEL SECURITY;
