-- Tell whether a batch could be stored now: tables named by $1 that are missing, or that refuse the user, or a standby.
-- To insert is not enough: ON CONFLICT reads the key.
SELECT bool_or(relation IS NULL) AS missing,
       NOT bool_and(
           has_table_privilege(relation, 'INSERT') AND has_column_privilege(relation, 'id', 'SELECT')
       ) AS refused,
       current_setting('transaction_read_only')::bool AS read_only
FROM (SELECT to_regclass(name) AS relation FROM unnest($1::text[]) AS name) AS tables
