-- Keep how long rows of each category are kept, and which category each type of event belongs to

-- How long raw rows are kept after they happened, by category; analytics-migrate retention shows and changes it.
CREATE TABLE analytics_retention (
    category text PRIMARY KEY CHECK (category IN ('system', 'interaction', 'activity', 'transaction', 'content')),
    keep interval NOT NULL CHECK (keep >= INTERVAL '1 day')
);
INSERT INTO analytics_retention (category, keep) VALUES
    ('system', INTERVAL '90 days'),
    ('interaction', INTERVAL '1 year'),
    ('activity', INTERVAL '2 years'),
    ('transaction', INTERVAL '7 years'),
    ('content', INTERVAL '7 years');

COMMENT ON TABLE analytics_retention IS 'How long raw rows are kept, by category; aggregates and sessions stay.';

-- What was dropped: rows of a category that happened before `dropped_before`, a midnight of UTC, may be gone. It is
-- written and committed before the first of them is. All parts of the table were looked through up to `swept_before`.
CREATE TABLE analytics_dropped (
    category text PRIMARY KEY REFERENCES analytics_retention,
    dropped_before timestamptz NOT NULL DEFAULT '-infinity',
    swept_before timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO analytics_dropped (category) SELECT category FROM analytics_retention;

-- The category of each type that a class says one of. All other types are `interaction`. `dropped_before` is what was
-- dropped of the type while it was of another category.
CREATE TABLE analytics_event_types (
    event_type text PRIMARY KEY CHECK (char_length(event_type) BETWEEN 1 AND 255),
    category text NOT NULL REFERENCES analytics_retention,
    dropped_before timestamptz NOT NULL DEFAULT '-infinity'
);

COMMENT ON TABLE analytics_event_types IS 'The category of each type of event; a type that is not here is interaction.';

INSERT INTO analytics_event_types (event_type, category)
SELECT unnest(string_to_array(c.types, ' ')), c.category
FROM (
    VALUES
        (
            'system',
            'api_request database_query application_error webhook_received webhook_processed task_created task_started '
            'task_completed task_failed task_cancelled cocoon_registered cocoon_connected cocoon_disconnected '
            'cocoon_claimed cocoon_setup_token_created cocoon_setup_token_used'
        ),
        (
            'interaction',
            'page_view page_engaged outbound_link_clicked user_identified search_performed filter_applied '
            'project_viewed profile_viewed message_sent notification_clicked'
        ),
        (
            'activity',
            'auth_login_attempt auth_code_verified auth_token_refresh auth_session_validated oauth_flow_started '
            'oauth_flow_completed integration_connected integration_disconnected integration_used integration_error '
            'user_registered user_logged_in user_logged_out session_started session_ended password_changed mfa_enabled '
            'mfa_disabled'
        ),
        (
            'transaction',
            'project_created project_updated project_deleted mission_created mission_completed spec_created '
            'forge_item_created proposal_submitted proposal_accepted proposal_rejected milestone_created '
            'milestone_approved milestone_completed payment_initiated payment_completed payment_failed'
        ),
        ('content', 'review_posted review_updated portfolio_created portfolio_updated profile_updated github_synced')
) AS c (category, types);

-- What was dropped of a type is remembered when it moves to another category.
CREATE FUNCTION analytics_move_event_type() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.category <> OLD.category THEN
        NEW.dropped_before := greatest(NEW.dropped_before, (
            SELECT d.dropped_before
            FROM analytics_dropped AS d
            WHERE d.category = CASE TG_OP WHEN 'INSERT' THEN 'interaction' ELSE OLD.category END
        ));
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER analytics_move_event_type BEFORE INSERT OR UPDATE ON analytics_event_types
    FOR EACH ROW EXECUTE FUNCTION analytics_move_event_type();

-- Note the categories of types, as the classes of a process that writes events say; return how many were new.
--
-- SECURITY DEFINER: the worker calls it, and needs no right but to insert events. So it can only lengthen what is known:
-- of two processes that say something else, during a deployment perhaps, the one that keeps the rows longer is right.
-- analytics-schemas sync, by the owner, sets a category as it is. Senders choose names, so there is a limit.
CREATE FUNCTION analytics_note_event_types(event_types text[], categories text[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
DECLARE
    changed integer;
BEGIN
    INSERT INTO analytics_event_types AS t (event_type, category)
    SELECT DISTINCT ON (n.event_type) n.event_type, n.category
    FROM unnest(event_types, categories) AS n (event_type, category)
    JOIN analytics_retention AS r ON r.category = n.category
    WHERE char_length(n.event_type) BETWEEN 1 AND 255
        AND (
            (SELECT count(*) FROM analytics_event_types) < 10000
            OR EXISTS (SELECT FROM analytics_event_types AS k WHERE k.event_type = n.event_type)
        )
    ORDER BY n.event_type, r.keep DESC
    ON CONFLICT (event_type) DO UPDATE SET category = excluded.category
    WHERE (SELECT r.keep FROM analytics_retention AS r WHERE r.category = excluded.category)
        > (SELECT r.keep FROM analytics_retention AS r WHERE r.category = t.category);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

-- Roles that may insert events today may note their categories; later ones get the right from analytics-migrate roles.
-- Roles that may read events may read this.
REVOKE EXECUTE ON FUNCTION analytics_note_event_types(text[], text[]) FROM PUBLIC;
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role, a.privilege_type AS may
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type IN ('INSERT', 'SELECT')
            AND a.grantee <> c.relowner
    LOOP
        IF one.may = 'INSERT' THEN
            EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_note_event_types(text[], text[]) TO ' || one.role;
        ELSE
            EXECUTE 'GRANT SELECT ON analytics_retention, analytics_event_types TO ' || one.role;
        END IF;
    END LOOP;
END
$$;
