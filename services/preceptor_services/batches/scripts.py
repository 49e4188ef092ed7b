"""The atomic steps of the batch store, as Lua for Redis >= 6.2. Each is whole or has not happened.

A batch `ref` (`<owner>/<id>`) is four keys, which expire together; no id holds a slash:

    <prefix><ref>           hash: state, total, done, failed, next, fingerprint, created_at, expires_at
    <prefix><ref>/items     hash: index -> request, for items that have no result yet
    <prefix><ref>/attempts  hash: index -> how often the item was taken, `e` and index -> the last attempt's error
    <prefix><ref>/results   stream: result number n has the id n-0; the last entry is the batch's end

All batches share four more: `open` (list of batches with items that nobody has begun), `leases` (sorted set of items
in hand, `<ref>#<index>`, by the time in ms at which they may be taken over), `waiting` (hash: items without a result
of each batch, and in `total`) and `wake` (stream of one entry, which idle replicas wait on).

An item has a result as soon as it is no longer in `items`: that alone decides which of two replicas was first.
"""

# What the scripts share. KEYS: open, leases, waiting, wake. ARGV[1]: prefix.
_SHARED = """
local open, leases, waiting, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix = ARGV[1]
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function forget(ref)
  local left = redis.call('HGET', waiting, ref)
  if left then
    redis.call('HDEL', waiting, ref)
    redis.call('HINCRBY', waiting, 'total', 0 - left)
  end
end
local function drop(ref, index)
  redis.call('ZREM', leases, ref .. '#' .. index)
  if redis.call('EXISTS', prefix .. ref) == 0 then forget(ref) end
end
local function finish(ref, state)
  local batch = prefix .. ref
  redis.call('HSET', batch, 'state', state)
  redis.call('XADD', batch .. '/results', (redis.call('HGET', batch, 'done') + 1) .. '-0', 'end', state)
  redis.call('PEXPIREAT', batch .. '/results', redis.call('HGET', batch, 'expires_at'))
  redis.call('DEL', batch .. '/items', batch .. '/attempts')
  redis.call('LREM', open, 0, ref)
  forget(ref)
end
"""

# Makes a batch of the items that were put down at `staged`. ARGV: prefix, ref, staged, fingerprint, most waiting,
# created_at, expires_at. Returns `made`, `known` (the same batch is there), `other` (another is) or `full`.
OPEN = (
    _SHARED
    + """
local ref, staged, fingerprint = ARGV[2], ARGV[3], ARGV[4]
local batch = prefix .. ref
local known = redis.call('HGET', batch, 'fingerprint')
if known then
  redis.call('DEL', staged)
  return known == fingerprint and 'known' or 'other'
end
local count = redis.call('HLEN', staged)
local ahead = tonumber(redis.call('HGET', waiting, 'total') or 0)
if ahead > 0 and ahead + count > tonumber(ARGV[5]) then
  redis.call('DEL', staged)
  return 'full'
end
redis.call('HSET', batch, 'state', 'running', 'total', count, 'done', 0, 'failed', 0, 'next', 0,
  'fingerprint', fingerprint, 'created_at', ARGV[6], 'expires_at', ARGV[7])
redis.call('RENAME', staged, batch .. '/items')
redis.call('PEXPIREAT', batch, ARGV[7])
redis.call('PEXPIREAT', batch .. '/items', ARGV[7])
redis.call('RPUSH', open, ref)
redis.call('HSET', waiting, ref, count)
redis.call('HINCRBY', waiting, 'total', count)
redis.call('XADD', wake, 'MAXLEN', 1, '*', 'open', ref)
return 'made'
"""
)

# Leases up to `count` items: first those whose lease ran out, then new ones, the open batches taking turns.
# ARGV: prefix, count, lease in ms. Returns the last id of `wake` and, per item, ref, index, request, attempt and the
# error of the attempt before.
TAKE = (
    _SHARED
    + """
local count, at = tonumber(ARGV[2]), now()
local last = redis.call('XREVRANGE', wake, '+', '-', 'COUNT', 1)
local taken = {last[1] and last[1][1] or '0-0'}
local free = count
local function lease(ref, index)
  local item = redis.call('HGET', prefix .. ref .. '/items', index)
  if item then
    local attempts = prefix .. ref .. '/attempts'
    redis.call('ZADD', leases, at + ARGV[3], ref .. '#' .. index)
    local attempt = redis.call('HINCRBY', attempts, index, 1)
    if attempt == 1 then redis.call('PEXPIREAT', attempts, redis.call('HGET', prefix .. ref, 'expires_at')) end
    for _, value in ipairs({ref, index, item, attempt, redis.call('HGET', attempts, 'e' .. index) or ''}) do
      taken[#taken + 1] = value
    end
    free = free - 1
  else
    drop(ref, index)
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', at, 'LIMIT', 0, count)) do
  lease(string.match(member, '^(.*)#(%d+)$'))
end
while free > 0 do
  local ref = redis.call('LPOP', open)
  if not ref then break end
  local place = redis.call('HMGET', prefix .. ref, 'next', 'total')
  if place[1] then
    redis.call('HINCRBY', prefix .. ref, 'next', 1)
    lease(ref, place[1])
    if place[1] + 1 < tonumber(place[2]) then redis.call('RPUSH', open, ref) end
  else
    forget(ref)
  end
end
return taken
"""
)

# Stores an item's result and forgets the item. ARGV: prefix, ref, index, result, 1 if it is a problem.
# Returns 0 if the item had a result already, or its batch is no longer there or running.
SETTLE = (
    _SHARED
    + """
local ref, index = ARGV[2], ARGV[3]
local batch = prefix .. ref
drop(ref, index)
if redis.call('HDEL', batch .. '/items', index) == 0 then return 0 end
redis.call('HDEL', batch .. '/attempts', index, 'e' .. index)
local done = redis.call('HINCRBY', batch, 'done', 1)
redis.call('HINCRBY', batch, 'failed', ARGV[5])
redis.call('XADD', batch .. '/results', done .. '-0', 'result', ARGV[4])
redis.call('HINCRBY', waiting, ref, -1)
redis.call('HINCRBY', waiting, 'total', -1)
if done == tonumber(redis.call('HGET', batch, 'total')) then
  finish(ref, 'done')
elseif done == 1 then
  redis.call('PEXPIREAT', batch .. '/results', redis.call('HGET', batch, 'expires_at'))
end
return 1
"""
)

# Extends the leases of items in hand. ARGV: prefix, lease in ms, then ref and index of each.
# Returns the places (from 0) of those that need no result any more.
RENEW = (
    _SHARED
    + """
local at, lost = now(), {}
for place = 3, #ARGV, 2 do
  local ref, index = ARGV[place], ARGV[place + 1]
  if redis.call('HEXISTS', prefix .. ref .. '/items', index) == 1 then
    redis.call('ZADD', leases, at + ARGV[2], ref .. '#' .. index)
  else
    drop(ref, index)
    lost[#lost + 1] = (place - 3) / 2
  end
end
return lost
"""
)

# Lets others take items in hand at once. ARGV: prefix, error of this attempt (empty: it was none, and does not count),
# then ref and index of each.
RELEASE = (
    _SHARED
    + """
for place = 3, #ARGV, 2 do
  local ref, index = ARGV[place], ARGV[place + 1]
  local lease = ref .. '#' .. index
  if redis.call('HEXISTS', prefix .. ref .. '/items', index) == 0 then
    drop(ref, index)
  elseif tonumber(redis.call('ZSCORE', leases, lease) or 0) > 0 then  -- else only the answer to a first try was lost
    redis.call('ZADD', leases, 0, lease)
    if ARGV[2] == '' then
      redis.call('HINCRBY', prefix .. ref .. '/attempts', index, -1)
    else
      redis.call('HSET', prefix .. ref .. '/attempts', 'e' .. index, ARGV[2])
    end
  end
end
redis.call('XADD', wake, 'MAXLEN', 1, '*', 'released', (#ARGV - 2) / 2)
"""
)

# Stops a batch: what has no result gets none. ARGV: prefix, ref. Nothing happens to one that has ended.
CANCEL = (
    _SHARED
    + """
if redis.call('HGET', prefix .. ARGV[2], 'state') == 'running' then finish(ARGV[2], 'cancelled') end
"""
)
