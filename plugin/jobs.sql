-- Every statement of the queue, by name (plugin/database.py reads them; plugin/jobs.py and plugin/outbox.py run them).
-- Times are POSIX seconds. docs/queue.md draws the states.

-- name: schema
CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    sop_class_uid TEXT,             -- NULL where a server keeps the instance: nothing of it was read yet
    transfer_syntax TEXT,
    relative_path TEXT UNIQUE,      -- the received file below data_dir, or ...
    remote TEXT,                    -- ... the identifier by which Orthanc knows the instance
    modality TEXT NOT NULL DEFAULT '',
    size INTEGER NOT NULL,
    sha256 TEXT,
    calling_ae TEXT NOT NULL,
    peer_host TEXT NOT NULL,
    received_at REAL NOT NULL,
    seen_at REAL NOT NULL,          -- last time it was sent, unchanged or not
    revision INTEGER,               -- the first revision that has it; NULL while its study is not whole
    UNIQUE (study_uid, sop_uid),
    CHECK ((relative_path IS NULL) <> (remote IS NULL))
) STRICT;
CREATE INDEX instance_sop ON instance (sop_uid);
CREATE INDEX instance_pending ON instance (study_uid) WHERE revision IS NULL;
CREATE TABLE reception (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    opened_at REAL NOT NULL         -- when the listener last started: quiet periods count from here at the earliest
) STRICT;
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study_uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'dead', 'superseded')),
    created_at REAL NOT NULL,
    not_before REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,   -- fencing: grows with every claim, never falls
    worker_id TEXT,
    lease_until REAL,
    status TEXT,
    error TEXT,
    result TEXT,
    finished_at REAL,
    again INTEGER NOT NULL DEFAULT 0 CHECK (again IN (0, 1)),   -- asked for by a person: nothing new has come
    UNIQUE (study_uid, revision)
) STRICT;
CREATE INDEX job_queued ON job (not_before, id) WHERE state = 'queued';
CREATE INDEX job_running ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_dead ON job (id) WHERE state = 'dead';
CREATE TABLE result_object (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES job (id),
    position INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('heatmap', 'card', 'report')),
    series_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_uid TEXT NOT NULL UNIQUE,
    relative_path TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    UNIQUE (job_id, position)
) STRICT;
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    object_id INTEGER NOT NULL REFERENCES result_object (id),
    destination TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL,
    owner TEXT,
    lease_until REAL,
    error TEXT,
    delivered_at REAL,
    UNIQUE (object_id, destination)
) STRICT;
CREATE INDEX delivery_pending ON delivery (destination, object_id) WHERE state = 'pending';
CREATE INDEX delivery_dead ON delivery (destination) WHERE state = 'dead';
CREATE TABLE destination (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,      -- in a row
    not_before REAL NOT NULL,
    error TEXT
) STRICT;
CREATE TABLE archive (
    name TEXT PRIMARY KEY,          -- the server whose changes are followed
    identity TEXT NOT NULL,         -- of its database: another one counts its changes from the beginning
    seq INTEGER NOT NULL            -- everything up to this change is in the queue
) STRICT

-- From the first version, which knew received files only, and no cards. `again` and `archive` are new.
-- name: migrate_1
ALTER TABLE instance RENAME TO instance_1;
DROP INDEX instance_sop;
DROP INDEX instance_pending;
CREATE TABLE instance (
    id INTEGER PRIMARY KEY, study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sop_uid TEXT NOT NULL,
    sop_class_uid TEXT, transfer_syntax TEXT, relative_path TEXT UNIQUE, remote TEXT,
    modality TEXT NOT NULL DEFAULT '', size INTEGER NOT NULL, sha256 TEXT, calling_ae TEXT NOT NULL,
    peer_host TEXT NOT NULL, received_at REAL NOT NULL, seen_at REAL NOT NULL, revision INTEGER,
    UNIQUE (study_uid, sop_uid), CHECK ((relative_path IS NULL) <> (remote IS NULL))
) STRICT;
INSERT INTO instance SELECT id, study_uid, series_uid, sop_uid, sop_class_uid, transfer_syntax, relative_path, NULL, '',
    size, sha256, calling_ae, peer_host, received_at, seen_at, revision FROM instance_1;
DROP TABLE instance_1;
CREATE INDEX instance_sop ON instance (sop_uid);
CREATE INDEX instance_pending ON instance (study_uid) WHERE revision IS NULL;
CREATE TABLE result_object_2 (
    id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL REFERENCES job (id), position INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('heatmap', 'card', 'report')), series_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL, sop_uid TEXT NOT NULL UNIQUE, relative_path TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL, UNIQUE (job_id, position)
) STRICT;
INSERT INTO result_object_2 SELECT * FROM result_object;
DROP TABLE result_object;
ALTER TABLE result_object_2 RENAME TO result_object;
ALTER TABLE job ADD COLUMN again INTEGER NOT NULL DEFAULT 0 CHECK (again IN (0, 1));
CREATE TABLE archive (name TEXT PRIMARY KEY, identity TEXT NOT NULL, seq INTEGER NOT NULL) STRICT

-- name: known_instance
SELECT id, sha256, remote FROM instance WHERE study_uid = :study_uid AND sop_uid = :sop_uid

-- name: own_result
SELECT id FROM result_object WHERE sop_uid = :sop_uid

-- name: add_instance
INSERT INTO instance (study_uid, series_uid, sop_uid, sop_class_uid, transfer_syntax, relative_path, size, sha256,
                      calling_ae, peer_host, received_at, seen_at)
VALUES (:study_uid, :series_uid, :sop_uid, :sop_class_uid, :transfer_syntax, :relative_path, :size, :sha256,
        :calling_ae, :peer_host, :received_at, :received_at)

-- name: add_remote_instance
INSERT INTO instance (study_uid, series_uid, sop_uid, remote, modality, size, calling_ae, peer_host, received_at, seen_at)
VALUES (:study_uid, :series_uid, :sop_uid, :remote, :modality, :size, :calling_ae, :peer_host, :now, :now)

-- The same instance under another identifier: its study was filed under another patient.
-- name: move_instance
UPDATE instance SET remote = :remote, seen_at = :now, revision = NULL WHERE id = :id

-- name: forget_instance
DELETE FROM instance WHERE study_uid = :study_uid AND remote = :remote

-- name: any_pending_of
SELECT 1 FROM instance WHERE study_uid = :study_uid AND revision IS NULL LIMIT 1

-- name: cursor
SELECT identity, seq FROM archive WHERE name = :name

-- name: move_cursor
INSERT INTO archive (name, identity, seq) VALUES (:name, :identity, :seq)
ON CONFLICT (name) DO UPDATE SET identity = :identity, seq = :seq

-- name: see_instance_again
UPDATE instance SET seen_at = MAX(seen_at, :received_at) WHERE id = :id

-- name: stored_class
SELECT sop_class_uid FROM instance WHERE sop_uid = :sop_uid
UNION ALL SELECT sop_class_uid FROM result_object WHERE sop_uid = :sop_uid LIMIT 1

-- name: known_paths
SELECT relative_path FROM instance WHERE relative_path IS NOT NULL

-- name: open_reception
INSERT INTO reception (id, opened_at) VALUES (1, :now) ON CONFLICT (id) DO UPDATE SET opened_at = :now

-- name: reception
SELECT opened_at FROM reception

-- name: any_pending_instance
SELECT 1 FROM instance WHERE revision IS NULL LIMIT 1

-- A clock that was set back must not keep a study waiting for the old time to come again.
-- name: clamp_future_instances
UPDATE instance SET received_at = MIN(received_at, :now), seen_at = MIN(seen_at, :now)
WHERE revision IS NULL AND (received_at > :now OR seen_at > :now)

-- name: receiving_studies
SELECT study_uid, MIN(received_at) AS first FROM instance WHERE revision IS NULL GROUP BY study_uid

-- name: last_seen
SELECT MAX(seen_at) AS last FROM instance WHERE study_uid = :study_uid

-- name: pending_sources
SELECT DISTINCT calling_ae, peer_host FROM instance WHERE study_uid = :study_uid AND revision IS NULL

-- name: latest_job
SELECT id, revision, state, token FROM job WHERE study_uid = :study_uid ORDER BY revision DESC LIMIT 1

-- name: absorb
UPDATE job SET created_at = :now, again = 0 WHERE id = :id

-- name: add_job
INSERT INTO job (study_uid, revision, created_at, not_before, again)
VALUES (:study_uid, :revision, :now, :now, :again)

-- name: assign_instances
UPDATE instance SET revision = :revision WHERE study_uid = :study_uid AND revision IS NULL

-- name: any_claimable
SELECT 1 FROM job WHERE (state = 'queued' AND not_before <= :now) OR (state = 'running' AND lease_until < :now) LIMIT 1

-- name: expired_jobs
SELECT id, study_uid, attempts FROM job WHERE state = 'running' AND lease_until < :now

-- name: requeue
UPDATE job SET state = 'queued', worker_id = NULL, lease_until = NULL, not_before = :not_before, error = :error
WHERE id = :id

-- The attempt does not count: the server that keeps the images was away.
-- name: defer
UPDATE job SET state = 'queued', attempts = attempts - 1, worker_id = NULL, lease_until = NULL,
               not_before = :not_before, error = :error
WHERE id = :id

-- name: bury
UPDATE job SET state = 'dead', status = 'failed', worker_id = NULL, lease_until = NULL, error = :error,
               finished_at = :now
WHERE id = :id

-- Of one study only the lowest open revision: the next one names its report as predecessor.
-- name: next_job
SELECT id, study_uid, revision, attempts, token, created_at, again FROM job AS j
WHERE state = 'queued' AND not_before <= :now
  AND NOT EXISTS (SELECT 1 FROM job AS e WHERE e.study_uid = j.study_uid AND e.revision < j.revision
                  AND e.state IN ('queued', 'running'))
ORDER BY not_before, id LIMIT 1

-- name: claim
UPDATE job SET state = 'running', attempts = attempts + 1, token = token + 1, worker_id = :worker_id,
               lease_until = :lease_until
WHERE id = :id

-- name: inputs
SELECT sop_uid, series_uid, relative_path, remote, modality, size, sha256, revision FROM instance
WHERE study_uid = :study_uid AND revision <= :revision ORDER BY sop_uid

-- name: sources
SELECT DISTINCT calling_ae, peer_host FROM instance
WHERE study_uid = :study_uid AND revision <= :revision ORDER BY calling_ae, peer_host

-- name: predecessor
SELECT j.study_uid, o.series_uid, o.sop_class_uid, o.sop_uid, j.revision, j.created_at FROM job AS j JOIN result_object AS o ON o.job_id = j.id
WHERE j.study_uid = :study_uid AND j.revision < :revision AND j.state = 'done' AND o.kind = 'report'
ORDER BY j.revision DESC LIMIT 1

-- name: expire_worker
UPDATE job SET lease_until = :past WHERE state = 'running' AND worker_id = :worker_id

-- name: heartbeat
UPDATE job SET lease_until = :lease_until WHERE id = :id AND token = :token AND state = 'running' AND lease_until >= :now

-- name: held
SELECT id, attempts FROM job WHERE id = :id AND token = :token AND state = 'running' AND lease_until >= :now

-- name: known_object
SELECT id FROM result_object WHERE sop_uid = :sop_uid

-- name: deliver_again
INSERT INTO delivery (object_id, destination, not_before) VALUES (:object_id, :destination, :now)
ON CONFLICT (object_id, destination) DO UPDATE SET state = 'pending', attempts = 0, refusals = 0, not_before = :now,
    owner = NULL, lease_until = NULL, error = NULL, delivered_at = NULL

-- name: finish
UPDATE job SET state = 'done', status = :status, result = :result, error = NULL, worker_id = NULL, lease_until = NULL,
               finished_at = :now
WHERE id = :id

-- name: supersede_dead
UPDATE job SET state = 'superseded' WHERE study_uid = :study_uid AND revision < :revision AND state = 'dead'

-- An object that an earlier revision made already (same derived UID, same work) is not made or sent again.
-- name: add_object
INSERT INTO result_object (job_id, position, kind, series_uid, sop_class_uid, sop_uid, relative_path, size, sha256)
VALUES (:job_id, :position, :kind, :series_uid, :sop_class_uid, :sop_uid, :relative_path, :size, :sha256)
ON CONFLICT (sop_uid) DO NOTHING RETURNING id

-- name: add_delivery
INSERT INTO delivery (object_id, destination, not_before) VALUES (:object_id, :destination, :now)

-- name: supersede_dead_before_latest
UPDATE job SET state = 'superseded'
WHERE state = 'dead' AND (:study_uid IS NULL OR study_uid = :study_uid)
  AND EXISTS (SELECT 1 FROM job AS l WHERE l.study_uid = job.study_uid AND l.revision > job.revision)

-- name: retry_jobs
UPDATE job SET state = 'queued', status = NULL, attempts = 0, not_before = :now, finished_at = NULL
WHERE state = 'dead' AND (:study_uid IS NULL OR study_uid = :study_uid)

-- name: job_counts
SELECT state, COUNT(*) AS n FROM job GROUP BY state

-- name: instance_counts
SELECT COUNT(*) AS instances, COUNT(DISTINCT CASE WHEN revision IS NULL THEN study_uid END) AS receiving FROM instance

-- name: jobs_of
SELECT * FROM job WHERE study_uid = :study_uid ORDER BY revision

-- name: recent_jobs
SELECT * FROM job ORDER BY id DESC LIMIT :limit

-- name: dead_jobs
SELECT * FROM job WHERE state = 'dead' ORDER BY id

-- name: objects_of
SELECT kind, series_uid, sop_class_uid, sop_uid, relative_path, size, sha256 FROM result_object
WHERE job_id = :job_id ORDER BY position

-- name: deliveries_of
SELECT d.destination, d.state, d.error FROM delivery AS d JOIN result_object AS o ON o.id = d.object_id
WHERE o.sop_uid = :sop_uid ORDER BY d.destination

-- name: any_delivery
SELECT 1 FROM delivery
WHERE destination = :destination AND state = 'pending' AND not_before <= :now
  AND (lease_until IS NULL OR lease_until < :now)
  AND NOT EXISTS (SELECT 1 FROM destination WHERE name = :destination AND not_before > :now)
LIMIT 1

-- In the order of the jobs, so that a revision overtakes an earlier one only while that one waits after a failure.
-- name: next_deliveries
SELECT d.id, d.attempts, o.kind, o.sop_class_uid, o.sop_uid, o.relative_path, j.study_uid, j.revision
FROM delivery AS d JOIN result_object AS o ON o.id = d.object_id JOIN job AS j ON j.id = o.job_id
WHERE d.destination = :destination AND d.state = 'pending' AND d.not_before <= :now
  AND (d.lease_until IS NULL OR d.lease_until < :now)
  AND NOT EXISTS (SELECT 1 FROM destination WHERE name = :destination AND not_before > :now)
ORDER BY j.id, o.position LIMIT :batch

-- name: lease_delivery
UPDATE delivery SET owner = :owner, lease_until = :lease_until WHERE id = :id

-- name: delivered
UPDATE delivery SET state = 'delivered', attempts = attempts + 1, owner = NULL, lease_until = NULL, error = NULL,
                    delivered_at = :now
WHERE id = :id AND state <> 'delivered'

-- name: held_delivery
SELECT attempts, refusals FROM delivery WHERE id = :id AND state = 'pending' AND owner = :owner

-- name: put_off_delivery
UPDATE delivery SET attempts = attempts + 1, refusals = refusals + :refusal, not_before = :not_before, owner = NULL,
                    lease_until = NULL, error = :error
WHERE id = :id

-- name: bury_delivery
UPDATE delivery SET state = 'dead', attempts = attempts + 1, refusals = refusals + 1, owner = NULL, lease_until = NULL,
                    error = :error
WHERE id = :id

-- name: release_deliveries
UPDATE delivery SET owner = NULL, lease_until = NULL
WHERE state = 'pending' AND owner = :owner AND (:destination IS NULL OR destination = :destination)

-- name: destination_state
SELECT failures FROM destination WHERE name = :name

-- name: destination_down
INSERT INTO destination (name, failures, not_before, error) VALUES (:name, :failures, :not_before, :error)
ON CONFLICT (name) DO UPDATE SET failures = :failures, not_before = :not_before, error = :error

-- name: destination_up
DELETE FROM destination WHERE name = :name

-- name: retry_deliveries
UPDATE delivery SET state = 'pending', attempts = 0, refusals = 0, not_before = :now
WHERE state = 'dead' AND object_id IN (
    SELECT o.id FROM result_object AS o JOIN job AS j ON j.id = o.job_id
    WHERE :study_uid IS NULL OR j.study_uid = :study_uid)

-- name: hurry_deliveries
UPDATE delivery SET not_before = :now
WHERE state = 'pending' AND not_before > :now AND object_id IN (
    SELECT o.id FROM result_object AS o JOIN job AS j ON j.id = o.job_id
    WHERE :study_uid IS NULL OR j.study_uid = :study_uid)

-- name: hurry_destinations
UPDATE destination SET not_before = :now WHERE not_before > :now

-- name: destination_counts
SELECT d.destination AS name, SUM(d.state = 'pending') AS pending, SUM(d.state = 'delivered') AS delivered,
       SUM(d.state = 'dead') AS dead, COALESCE(s.failures, 0) AS failures, s.not_before, s.error
FROM delivery AS d LEFT JOIN destination AS s ON s.name = d.destination
GROUP BY d.destination ORDER BY d.destination

-- name: dead_deliveries
SELECT j.study_uid, j.revision, o.kind, o.sop_uid, d.destination, d.state, d.attempts, d.error
FROM delivery AS d JOIN result_object AS o ON o.id = d.object_id JOIN job AS j ON j.id = o.job_id
WHERE d.state = 'dead' ORDER BY d.id
