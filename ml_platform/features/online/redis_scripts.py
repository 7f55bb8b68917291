"""Lua of the online store in Redis: writes that compare inside the server, so that none undoes another.

A row is eight bytes of time, which sort like the time, and its packed values. A generation is one definition of a
view; its number is part of every row's key, so that the rows of an older one are no longer read as soon as
`view:<name>` names the new one. `pushed:<generation>` has the rows that were pushed and were not part of a whole view
yet, with the number of that push; `count:<generation>` says how many rows there are, or more, and is absent where
nobody counted.

Scripts that write rows return -1 when the view's record is not the one they were given, -2 when another publisher has
the lock.
"""

_LATER = """
local function later(a, b)
    local a_high, a_low = struct.unpack('>I4I4', a)
    local b_high, b_low = struct.unpack('>I4I4', b)
    return a_high > b_high or (a_high == b_high and a_low > b_low)
end
local function put(changes, count, fresh)
    if #changes > 0 then redis.call('MSET', unpack(changes)) end
    if fresh ~= 0 and redis.call('EXISTS', count) == 1 then redis.call('INCRBY', count, fresh) end
end
"""

# Keys: record, newest, pushed, count, rows. Arguments: the record ('': any), newest time, number of the push, values.
MERGE = (
    _LATER
    + """
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local rows = {}
for i = 5, #KEYS do rows[i - 4] = KEYS[i] end
local found, changes, changed, fresh = redis.call('MGET', unpack(rows)), {}, 0, 0
for i, key in ipairs(rows) do
    local old, new = found[i], ARGV[i + 3]
    if not old then fresh = fresh + 1 end
    if not old or (old ~= new and not later(old, new)) then
        changes[#changes + 1], changes[#changes + 2] = key, new
        changed = changed + 1
    end
    if ARGV[3] ~= '' and not (old and later(old, new)) then redis.call('HSET', KEYS[3], key, ARGV[3]) end
end
put(changes, KEYS[4], fresh)
local last = redis.call('GET', KEYS[2])
if not last or later(ARGV[2], last) then redis.call('SET', KEYS[2], ARGV[2]) end
return changed
"""
)

_LOCKED = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return -2 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local since = tonumber(ARGV[4])
"""

# Keys: record, lock, pushed, count, rows. Arguments: record, holder, milliseconds, pushes up to the mark, values.
REPLACE = (
    _LATER
    + _LOCKED
    + """
local rows = {}
for i = 5, #KEYS do rows[i - 4] = KEYS[i] end
local found, pushed = redis.call('MGET', unpack(rows)), redis.call('HMGET', KEYS[3], unpack(rows))
local changes, changed, fresh = {}, 0, 0
for i, key in ipairs(rows) do
    local old, new, push = found[i], ARGV[i + 4], pushed[i]
    local stays = old and push and tonumber(push) > since and old ~= new and not later(new, old)
    if not old then fresh = fresh + 1 end
    if old ~= new and not stays then
        changes[#changes + 1], changes[#changes + 2] = key, new
        changed = changed + 1
    end
    if push and not stays then redis.call('HDEL', KEYS[3], key) end
end
put(changes, KEYS[4], fresh)
return changed
"""
)

# Keys and arguments as of REPLACE, without values: deletes the rows but those pushed since the mark.
WITHDRAW = (
    _LOCKED
    + """
local changed = 0
for i = 5, #KEYS do
    local push = redis.call('HGET', KEYS[3], KEYS[i])
    if not (push and tonumber(push) > since) then
        changed = changed + redis.call('DEL', KEYS[i])
        if push then redis.call('HDEL', KEYS[3], KEYS[i]) end
    end
end
if changed > 0 and redis.call('EXISTS', KEYS[4]) == 1 then redis.call('DECRBY', KEYS[4], changed) end
return changed
"""
)

# Keys: record, lock, pushed, newest, marks. Arguments as of WITHDRAW, then the whole view's newest time ('': none).
FINISH = (
    _LATER
    + _LOCKED
    + """
local newest = ARGV[5]
for _, key in ipairs(redis.call('HKEYS', KEYS[3])) do
    local row = redis.call('GET', key)
    if row and (newest == '' or later(row, newest)) then newest = string.sub(row, 1, 8) end
end
if newest == '' then redis.call('DEL', KEYS[4]) else redis.call('SET', KEYS[4], newest) end
redis.call('HINCRBY', KEYS[5], 'publications', 1)
redis.call('DEL', KEYS[2])
return 1
"""
)

# Puts a definition in force, unless another writer did meanwhile.
SWITCH = """
if redis.call('GET', KEYS[1]) ~= (ARGV[2] ~= '' and ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[4])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[2], 0, ARGV[3]) end
return 1
"""

UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"
