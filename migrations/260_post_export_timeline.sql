-- Note the timeline under which a page of an export was fixed, so that it has the same token after a promotion

-- Null: no page is fixed, or it was by an earlier release, under the timeline of the server.
ALTER TABLE analytics_export_lanes ADD COLUMN timeline text;
