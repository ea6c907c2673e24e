-- Keep which category each type of event belongs to, and what was dropped of each category

-- The category of each type that a class says one of. All other types are `interaction`. `dropped_before` is what was
-- dropped of the type while it was of another category.
CREATE TABLE analytics_event_types (
    event_type TEXT PRIMARY KEY CHECK (length(event_type) BETWEEN 1 AND 255),
    category TEXT NOT NULL CHECK (category IN ('system', 'interaction', 'activity', 'transaction', 'content')),
    dropped_before TEXT NOT NULL DEFAULT ''
);

INSERT INTO analytics_event_types (event_type, category)
VALUES
    ('api_request', 'system'), ('database_query', 'system'), ('application_error', 'system'),
    ('webhook_received', 'system'), ('webhook_processed', 'system'), ('task_created', 'system'),
    ('task_started', 'system'), ('task_completed', 'system'), ('task_failed', 'system'), ('task_cancelled', 'system'),
    ('cocoon_registered', 'system'), ('cocoon_connected', 'system'), ('cocoon_disconnected', 'system'),
    ('cocoon_claimed', 'system'), ('cocoon_setup_token_created', 'system'), ('cocoon_setup_token_used', 'system'),
    ('page_view', 'interaction'), ('page_engaged', 'interaction'), ('outbound_link_clicked', 'interaction'),
    ('user_identified', 'interaction'), ('search_performed', 'interaction'), ('filter_applied', 'interaction'),
    ('project_viewed', 'interaction'), ('profile_viewed', 'interaction'), ('message_sent', 'interaction'),
    ('notification_clicked', 'interaction'),
    ('auth_login_attempt', 'activity'), ('auth_code_verified', 'activity'), ('auth_token_refresh', 'activity'),
    ('auth_session_validated', 'activity'), ('oauth_flow_started', 'activity'), ('oauth_flow_completed', 'activity'),
    ('integration_connected', 'activity'), ('integration_disconnected', 'activity'), ('integration_used', 'activity'),
    ('integration_error', 'activity'), ('user_registered', 'activity'), ('user_logged_in', 'activity'),
    ('user_logged_out', 'activity'), ('session_started', 'activity'), ('session_ended', 'activity'),
    ('password_changed', 'activity'), ('mfa_enabled', 'activity'), ('mfa_disabled', 'activity'),
    ('project_created', 'transaction'), ('project_updated', 'transaction'), ('project_deleted', 'transaction'),
    ('mission_created', 'transaction'), ('mission_completed', 'transaction'), ('spec_created', 'transaction'),
    ('forge_item_created', 'transaction'), ('proposal_submitted', 'transaction'), ('proposal_accepted', 'transaction'),
    ('proposal_rejected', 'transaction'), ('milestone_created', 'transaction'), ('milestone_approved', 'transaction'),
    ('milestone_completed', 'transaction'), ('payment_initiated', 'transaction'), ('payment_completed', 'transaction'),
    ('payment_failed', 'transaction'),
    ('review_posted', 'content'), ('review_updated', 'content'), ('portfolio_created', 'content'),
    ('portfolio_updated', 'content'), ('profile_updated', 'content'), ('github_synced', 'content');

-- What was dropped: rows of a category that happened before `dropped_before`, a midnight of UTC, may be gone. It is
-- written in the transaction that deletes the first of them.
CREATE TABLE analytics_dropped (
    category TEXT PRIMARY KEY,
    dropped_before TEXT NOT NULL DEFAULT ''
);
INSERT INTO analytics_dropped (category)
VALUES ('system'), ('interaction'), ('activity'), ('transaction'), ('content');

-- What was dropped of a type is remembered when it moves to another category.
CREATE TRIGGER analytics_note_event_type AFTER INSERT ON analytics_event_types
BEGIN
    UPDATE analytics_event_types
    SET dropped_before = max(dropped_before, (
        SELECT d.dropped_before FROM analytics_dropped AS d WHERE d.category = 'interaction'
    ))
    WHERE event_type = new.event_type;
END;

CREATE TRIGGER analytics_move_event_type AFTER UPDATE OF category ON analytics_event_types
WHEN new.category <> old.category
BEGIN
    UPDATE analytics_event_types
    SET dropped_before = max(dropped_before, (
        SELECT d.dropped_before FROM analytics_dropped AS d WHERE d.category = old.category
    ))
    WHERE event_type = new.event_type;
END;
