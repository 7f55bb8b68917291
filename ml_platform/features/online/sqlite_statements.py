"""SQL of the online store in SQLite: its tables, and what writing does to them."""

# A layout is one definition of a view, which says what its packed values mean. Writing another definition than the
# view's last makes a new layout, and deletes the rows of the last one in the same transaction.
# `pushed` has the entities whose row was pushed and was not part of a whole view yet, with the number of that push.
SCHEMA = """
CREATE TABLE IF NOT EXISTS layouts (
    layout INTEGER PRIMARY KEY AUTOINCREMENT, view TEXT NOT NULL, hash TEXT NOT NULL, columns BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS entities (
    key BLOB PRIMARY KEY, layout INTEGER NOT NULL, event_time INTEGER NOT NULL, packed BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schemas (layout INTEGER PRIMARY KEY, schema BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS newest (view TEXT PRIMARY KEY, event_time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (view TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pushed (key BLOB PRIMARY KEY, push INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    view TEXT PRIMARY KEY, publications INTEGER NOT NULL DEFAULT 0, pushes INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

UPSERT = """
INSERT INTO entities VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET event_time = excluded.event_time, packed = excluded.packed
WHERE excluded.event_time > event_time OR (excluded.event_time = event_time AND excluded.packed <> packed)
"""
NEWEST = """
INSERT INTO newest SELECT ?, ? WHERE true
ON CONFLICT (view) DO UPDATE SET event_time = max(event_time, excluded.event_time)
"""

WRITTEN = "INSERT OR REPLACE INTO written VALUES (?, ?)"
COUNT = """
INSERT INTO marks (view, {0}) VALUES (?, 1) ON CONFLICT (view) DO UPDATE SET {0} = {0} + 1 RETURNING {0}
"""

# A whole view replaces what the store has of it: the keys from :low to :high. Rows pushed after the mark stay.
WHOLE = """
CREATE TEMP TABLE whole (key BLOB PRIMARY KEY, event_time INTEGER NOT NULL, packed BLOB NOT NULL) WITHOUT ROWID
"""
ADD_TO_WHOLE = UPSERT.replace("entities VALUES (?, ?, ?, ?)", "whole VALUES (?, ?, ?)")
KEYS = "key >= :low AND key < :high"
PUSHED_SINCE = "EXISTS (SELECT 1 FROM pushed p WHERE p.key = entities.key AND p.push > :pushes)"
WITHDRAW = f"""
DELETE FROM entities WHERE {KEYS} AND NOT EXISTS (SELECT 1 FROM whole w WHERE w.key = entities.key)
AND NOT {PUSHED_SINCE}
"""
REPLACE = f"""
INSERT INTO entities SELECT key, :layout, event_time, packed FROM whole WHERE true
ON CONFLICT (key) DO UPDATE SET event_time = excluded.event_time, packed = excluded.packed
WHERE (excluded.event_time <> event_time OR excluded.packed <> packed)
AND (excluded.event_time > event_time OR NOT {PUSHED_SINCE})
"""
NO_LONGER_PUSHED = f"""
DELETE FROM pushed WHERE {KEYS} AND (push <= :pushes OR EXISTS (
    SELECT 1 FROM whole w JOIN entities e USING (key, event_time, packed) WHERE w.key = pushed.key
))
"""
FORGET_PUSHED = """
DELETE FROM pushed WHERE key IN (SELECT key FROM entities JOIN layouts USING (layout) WHERE view = ?)
"""
FORGET_NEWEST = "DELETE FROM newest WHERE view = :view"
FIND_NEWEST = f"""
INSERT INTO newest SELECT :view, max(event_time) FROM entities WHERE {KEYS} HAVING count(*) > 0
"""
RECORD_SCHEMA = """
INSERT INTO schemas VALUES (?, ?) ON CONFLICT (layout) DO UPDATE SET schema = excluded.schema
WHERE schema <> excluded.schema
"""
LAST_LAYOUT = "SELECT layout, hash, columns FROM layouts WHERE view = ? ORDER BY layout DESC LIMIT 1"
