-- Integrations, logins and cocoons by day: from their aggregates, raw rows for what is not a whole day of UTC, or is of
-- one service.

-- integrations --
-- Count the events of integrations by day and provider. $1 to $4 are the bounds of the three parts, $5 the edges of the
-- days, $6 is the service, $7 the greatest number of rows.
SELECT d.*, d.errors * 1.0 / nullif(d.uses, 0) AS error_rate
FROM (
    SELECT
        analytics_bucket(i.day, 5) AS bucket, i.provider, i.connections, i.disconnections, i.uses, i.errors,
        i.unique_users
    FROM analytics_integration_health_daily AS i
    WHERE i.day >= $2 AND i.day < $3
    UNION ALL
    SELECT
        u.bucket, u.provider, sum(u.connections), sum(u.disconnections), sum(u.uses),
        sum(u.errors), count(u.user_id)
    FROM (
        SELECT
            analytics_bucket(e.timestamp, 5) AS bucket,
            e.provider,
            e.user_id,
            count(*) FILTER (WHERE e.event_type = 'integration_connected') AS connections,
            count(*) FILTER (WHERE e.event_type = 'integration_disconnected') AS disconnections,
            count(*) FILTER (WHERE e.event_type = 'integration_used') AS uses,
            count(*) FILTER (WHERE e.event_type = 'integration_error') AS errors
        FROM (
            SELECT r.timestamp, r.event_type, r.user_id, r.provider
            FROM analytics_event_facts AS r
            WHERE r.timestamp >= $1 AND r.timestamp < $2 AND ($6 IS NULL OR r.service = $6)
                AND r.event_type IN (
                    'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
                )
            UNION ALL
            SELECT r.timestamp, r.event_type, r.user_id, r.provider
            FROM analytics_event_facts AS r
            WHERE r.timestamp >= $3 AND r.timestamp < $4 AND ($6 IS NULL OR r.service = $6)
                AND r.event_type IN (
                    'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
                )
        ) AS e
        GROUP BY 1, 2, 3
    ) AS u
    GROUP BY u.bucket, u.provider
) AS d
ORDER BY d.bucket, d.provider NULLS LAST
LIMIT $7;

-- auth --
-- Count logins, code verifications and token refreshes by day. $1 to $4 are the bounds of the three parts, $5 the edges
-- of the days, $6 is the service, $7 the greatest number of rows.
SELECT d.*, d.successful_logins * 1.0 / nullif(d.login_attempts, 0) AS login_success_rate
FROM (
    SELECT
        analytics_bucket(a.day, 5) AS bucket, a.login_attempts, a.successful_logins, a.failed_logins,
        a.code_verifications, a.token_refreshes, a.unique_users_authenticated
    FROM analytics_auth_events_daily AS a
    WHERE a.day >= $2 AND a.day < $3
    UNION ALL
    SELECT
        analytics_bucket(e.timestamp, 5),
        count(*) FILTER (WHERE e.event_type = 'auth_login_attempt'),
        count(*) FILTER (WHERE e.event_type = 'auth_login_attempt' AND e.success = 'true'),
        count(*) FILTER (WHERE e.event_type = 'auth_login_attempt' AND e.success = 'false'),
        count(*) FILTER (WHERE e.event_type = 'auth_code_verified'),
        count(*) FILTER (WHERE e.event_type = 'auth_token_refresh'),
        count(DISTINCT e.user_id) FILTER (WHERE e.success = 'true')
    FROM (
        SELECT r.timestamp, r.event_type, r.user_id, r.success
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND ($6 IS NULL OR r.service = $6)
            AND r.event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
        UNION ALL
        SELECT r.timestamp, r.event_type, r.user_id, r.success
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND ($6 IS NULL OR r.service = $6)
            AND r.event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
    ) AS e
    GROUP BY 1
) AS d
ORDER BY d.bucket
LIMIT $7;

-- cocoons --
-- Count the events of cocoons by day. $1 to $4 are the bounds of the three parts, $5 the edges of the days, $6 is the
-- service.
SELECT d.*
FROM (
    SELECT
        analytics_bucket(c.day, 5) AS bucket, c.registrations, c.connections, c.disconnections, c.claims,
        c.avg_session_duration_seconds, c.unique_cocoons
    FROM analytics_cocoon_activity_daily AS c
    WHERE c.day >= $2 AND c.day < $3
    UNION ALL
    SELECT
        analytics_bucket(e.timestamp, 5),
        count(*) FILTER (WHERE e.event_type = 'cocoon_registered'),
        count(*) FILTER (WHERE e.event_type = 'cocoon_connected'),
        count(*) FILTER (WHERE e.event_type = 'cocoon_disconnected'),
        count(*) FILTER (WHERE e.event_type = 'cocoon_claimed'),
        avg(e.duration_seconds) FILTER (WHERE e.event_type = 'cocoon_disconnected'),
        count(DISTINCT analytics_text(e.data, 'cocoon_id'))
    FROM (
        SELECT r.timestamp, r.event_type, r.data, r.duration_seconds
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND ($6 IS NULL OR r.service = $6)
            AND r.event_type IN (
                'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
                'cocoon_setup_token_used'
            )
        UNION ALL
        SELECT r.timestamp, r.event_type, r.data, r.duration_seconds
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND ($6 IS NULL OR r.service = $6)
            AND r.event_type IN (
                'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
                'cocoon_setup_token_used'
            )
    ) AS e
    GROUP BY 1
) AS d
ORDER BY d.bucket
LIMIT $7;
