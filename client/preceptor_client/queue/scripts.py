"""The atomic steps of the queue, as Lua for Redis >= 6.2. Each is whole or has not happened.

    <ns>:cohorts         stream: run, cohort, task. An entry goes when its task ends, so its length is what is open
    <ns>:verdicts:<run>  stream: cohort, and response or dead (the reason); trace, where the answer was traced
    <ns>:known:<run>     hash: cohort -> its entry in `cohorts`, or `answered:` or `dead:` and its entry in `verdicts`
    <ns>:dead            stream: what was in the entry, then run, cohort, reason, attempts, error
    <ns>:letters         hash: run -> entries in `dead`
    <ns>:errors          hash: entry in `cohorts` -> last error
    <ns>:runs            set: runs with a cohort in `known`
    <ns>:room            stream of one entry, which producers without room wait on
    <ns>:workers         sorted set: worker, by the time in ms at which it last asked for work or renewed a lease

The leases are Redis's own: a pending entry's idle time; the attempts are its count of deliveries. What was handed back
is pending with a consumer of its own, `nobody`, as if for ever.
The first write of every step but OPEN (of a new group), SUBMIT and REPLAY is one that Redis allows when its memory is
full, and it lets a script that has written finish: what is there can be judged, and read, while no more comes in.
Every step may be repeated when its answer was lost.
"""

# KEYS: cohorts, dead, room, errors, runs, letters, workers. ARGV[1]: what the names of all keys begin with.
_SHARED = """
local cohorts, dead, room, errors, runs, letters, workers = unpack(KEYS)
local group, nobody = 'judges', 'nobody'
local function known(run) return ARGV[1] .. 'known:' .. run end
local function verdicts(run) return ARGV[1] .. 'verdicts:' .. run end
local function wake() redis.call('XADD', room, 'MAXLEN', 1, '*', 'freed', 1) end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- Redis 6.2 knows a consumer only once it was given something. A full memory must not keep a worker from working.
local function seen(consumer) redis.pcall('ZADD', workers, now(), consumer) end
local function entry(stream, id)
  local found = redis.call('XRANGE', stream, id, id)[1]
  return found and found[2]
end
local function holder(id)
  local found = redis.pcall('XPENDING', cohorts, group, id, id, 1)[1]
  if found then return found[2], found[4] end
end
local function remove(id)
  redis.call('XACK', cohorts, group, id)
  redis.call('XDEL', cohorts, id)
  redis.call('HDEL', errors, id)
end
local function close(run)
  if redis.call('HLEN', known(run)) == 0 then redis.call('SREM', runs, run) end
end
local function count_letter(run, by)
  if redis.call('HINCRBY', letters, run, by) <= 0 then redis.call('HDEL', letters, run) end
end
local function bury(fields, run, cohort, reason, attempts, error)
  local letter = {}
  for place = 1, math.min(#fields, 128) do letter[place] = fields[place] end
  for _, text in ipairs({'run', run, 'cohort', cohort, 'reason', reason, 'attempts', attempts, 'error', error}) do
    letter[#letter + 1] = text
  end
  redis.call('XADD', dead, '*', unpack(letter))
  count_letter(run, 1)
end
local function notify(run, cohort, reason)
  local notice = redis.call('XADD', verdicts(run), '*', 'cohort', cohort, 'dead', reason)
  redis.call('HSET', known(run), cohort, 'dead:' .. notice)
end
local function field(fields, name)
  for place = #fields - 1, 1, -2 do
    if fields[place] == name then return fields[place + 1] end
  end
  return ''
end
"""

# ARGV: bound, bound of the run, run, then cohort and task of each. Returns the id to wait after on `room`, read inside
# the same step so that no wake-up falls in between, then for each in turn 1 (appended) or 0 (known); it ends at the
# first that there is no room for.
SUBMIT = (
    _SHARED
    + """
local bound, run_bound, run, names = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], {}
for place = 5, #ARGV, 2 do names[#names + 1] = ARGV[place] end
local found = redis.call('HMGET', known(run), unpack(names))
local open, kept = redis.call('XLEN', cohorts), redis.call('HLEN', known(run))
local done, new, entries = {''}, {}, {}
for place, cohort in ipairs(names) do
  if found[place] or new[cohort] then
    done[#done + 1] = 0
  elseif open >= bound or kept >= run_bound then
    local last = redis.call('XREVRANGE', room, '+', '-', 'COUNT', 1)[1]
    done[1] = last and last[1] or '0-0'
    break
  else
    local id = redis.call('XADD', cohorts, '*', 'run', run, 'cohort', cohort, 'task', ARGV[4 + 2 * place])
    entries[#entries + 1] = cohort
    entries[#entries + 1] = id
    open, kept, new[cohort], done[#done + 1] = open + 1, kept + 1, true, 1
  end
end
if #entries > 0 then
  redis.call('HSET', known(run), unpack(entries))
  redis.call('SADD', runs, run)
end
return done
"""
)

# ARGV: run, cohorts. Returns the places (from 0) of those of which nothing is left.
MISSING = (
    _SHARED
    + """
local run, missing = ARGV[2], {}
for place = 3, #ARGV do
  local value = redis.call('HGET', known(run), ARGV[place])
  local outcome = value and string.match(value, ':(.*)')
  local there = value and (outcome and entry(verdicts(run), outcome) or not outcome and entry(cohorts, value))
  if not there then
    if value then redis.call('HDEL', known(run), ARGV[place]) end
    missing[#missing + 1] = place - 3
  end
end
return missing
"""
)

# ARGV: run, then cohort and entry of each.
FORGET = (
    _SHARED
    + """
local run, ids, ended = ARGV[2], {}, {}
for place = 3, #ARGV, 2 do
  local cohort, id = ARGV[place], ARGV[place + 1]
  local value = redis.call('HGET', known(run), cohort)
  if value == 'answered:' .. id or value == 'dead:' .. id then ended[#ended + 1] = cohort end
  ids[#ids + 1] = id
end
redis.call('XDEL', verdicts(run), unpack(ids))
if #ended > 0 then redis.call('HDEL', known(run), unpack(ended)) end
close(run)
wake()
"""
)

# ARGV: run, cohorts; all if none is named. Returns how many there were.
WITHDRAW = (
    _SHARED
    + """
local run, count = ARGV[2], 0
local names = #ARGV == 2 and redis.call('HKEYS', known(run)) or {unpack(ARGV, 3)}
for _, cohort in ipairs(names) do
  local value = redis.call('HGET', known(run), cohort)
  if value then
    local outcome = string.match(value, ':(.*)')
    if outcome then redis.call('XDEL', verdicts(run), outcome) else remove(value) end
    redis.call('HDEL', known(run), cohort)
    count = count + 1
  end
end
if #ARGV == 2 then redis.call('DEL', verdicts(run)) end
close(run)
if count > 0 then wake() end
return count
"""
)

# Makes the group if it is not there, and takes consumers off it that were left behind. ARGV: after how many ms.
OPEN = (
    _SHARED
    + """
if redis.pcall('XPENDING', cohorts, group).err then
  redis.call('XGROUP', 'CREATE', cohorts, group, '0', 'MKSTREAM')
end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', cohorts, group)) do
  if field(consumer, 'pending') == 0 and field(consumer, 'idle') > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', cohorts, group, field(consumer, 'name'))
  end
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now() - ARGV[2])
"""
)

# Takes over what others have held for longer than the lease. What is new is read by XREADGROUP itself: through Lua an
# entry would be copied three times more. ARGV: consumer, count, lease in ms. Returns, of each, entry, attempt, last
# error, fields; false if there is no group.
TAKE = (
    _SHARED
    + """
local consumer, free, taken, cursor = ARGV[2], tonumber(ARGV[3]), {}, '0-0'
seen(consumer)
repeat
  local found = redis.pcall('XAUTOCLAIM', cohorts, group, consumer, ARGV[4], cursor, 'COUNT', free, 'JUSTID')
  if found.err then
    if string.find(found.err, 'NOGROUP') then return false end
    return found
  end
  cursor = found[1]
  for _, id in ipairs(found[2]) do
    local fields, _, before = entry(cohorts, id), holder(id)
    if fields then
      redis.call('XCLAIM', cohorts, group, consumer, 0, id, 'RETRYCOUNT', before + 1, 'JUSTID')
      taken[#taken + 1] = {id, before + 1, redis.call('HGET', errors, id) or '', fields}
      free = free - 1
    else  -- deleted by hand
      remove(id)
    end
  end
until cursor == '0-0' or free <= 0
return taken
"""
)

# ARGV: consumer, entries. Returns the places (from 0) of those that it holds no longer.
RENEW = (
    _SHARED
    + """
local consumer, lost = ARGV[2], {}
seen(consumer)
for place = 3, #ARGV do
  if holder(ARGV[place]) == consumer then
    redis.call('XCLAIM', cohorts, group, consumer, 0, ARGV[place], 'JUSTID')
  else
    lost[#lost + 1] = place - 3
  end
end
return lost
"""
)

# Gives tasks to nobody, so that they are the first to be taken over. ARGV: consumer, 1 if it counts as an attempt,
# error, entries.
HAND_BACK = (
    _SHARED
    + """
local consumer, counts, error = ARGV[2], tonumber(ARGV[3]), ARGV[4]
for place = 5, #ARGV do
  local id = ARGV[place]
  local by, deliveries = holder(id)
  if by == consumer then
    local attempts = deliveries - 1 + counts
    redis.call('XCLAIM', cohorts, group, nobody, 0, id, 'TIME', 1, 'RETRYCOUNT', attempts, 'JUSTID')
    if error ~= '' then redis.call('HSET', errors, id, error) end
  end
end
"""
)

# Replaces tasks by their responses, each once. ARGV: run, then cohort, entry, trace (or nothing) and response of each.
# Returns the places (from 0) of those that had ended already.
SETTLE = (
    _SHARED
    + """
local run, names, late, ids, answers = ARGV[2], {}, {}, {}, {}
for place = 3, #ARGV, 4 do names[#names + 1] = ARGV[place] end
local found = redis.call('HMGET', known(run), unpack(names))
for place, cohort in ipairs(names) do
  local id, trace = ARGV[4 * place], ARGV[1 + 4 * place]
  if found[place] == id and redis.call('XACK', cohorts, group, id) == 1 then
    local answer = {'cohort', cohort, 'response', ARGV[2 + 4 * place]}
    if trace ~= '' then answer[5], answer[6] = 'trace', trace end
    local stored = redis.call('XADD', verdicts(run), '*', unpack(answer))
    answers[#answers + 1] = cohort
    answers[#answers + 1] = 'answered:' .. stored
    ids[#ids + 1] = id
  else
    late[#late + 1] = place - 1
  end
end
if #ids > 0 then
  redis.call('HSET', known(run), unpack(answers))
  redis.call('XDEL', cohorts, unpack(ids))
  redis.call('HDEL', errors, unpack(ids))
  wake()
end
return late
"""
)

# Replaces a task by its dead letter, once. ARGV: run, cohort (empty if they cannot be told), entry, reason, attempts.
# Returns 1, or 0 if it had ended already.
BURY = (
    _SHARED
    + """
local run, cohort, id, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fields, error = entry(cohorts, id) or {}, redis.call('HGET', errors, id) or ''
if redis.call('XACK', cohorts, group, id) == 0 then return 0 end
remove(id)
bury(fields, run, cohort, reason, ARGV[6], error)
if cohort ~= '' and redis.call('HGET', known(run), cohort) == id then notify(run, cohort, reason) end
wake()
return 1
"""
)

# Replaces an outcome that cannot be read by a dead letter. ARGV: run, cohort (empty if it cannot be told), entry,
# reason.
BURY_OUTCOME = (
    _SHARED
    + """
local run, cohort, id, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fields = entry(verdicts(run), id)
if redis.call('XDEL', verdicts(run), id) == 0 then return end
bury(fields, run, cohort, reason, 0, '')
local value = redis.call('HGET', known(run), cohort)
if value == 'answered:' .. id or value == 'dead:' .. id then notify(run, cohort, reason) end
"""
)

# ARGV: consumer.
LEAVE = (
    _SHARED
    + """
redis.call('ZREM', workers, ARGV[2])
local pending = redis.pcall('XPENDING', cohorts, group, '-', '+', 1, ARGV[2])
if not pending.err and #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', cohorts, group, ARGV[2]) end
"""
)

# Puts a dead letter's task back. ARGV: bound, entry in `dead`. Returns `replayed`, `full`, `gone`, `unreadable` (it
# holds no task), or `superseded` (its cohort was submitted again since).
REPLAY = (
    _SHARED
    + """
local letter = entry(dead, ARGV[3])
if not letter then return 'gone' end
local run, cohort, task = field(letter, 'run'), field(letter, 'cohort'), field(letter, 'task')
if run == '' or cohort == '' or task == '' then return 'unreadable' end
local value = redis.call('HGET', known(run), cohort)
local notice = value and string.match(value, '^dead:(.*)')
if value and not notice then return 'superseded' end
if redis.call('XLEN', cohorts) >= tonumber(ARGV[2]) then return 'full' end
local id = redis.call('XADD', cohorts, '*', 'run', run, 'cohort', cohort, 'task', task)
redis.call('HSET', known(run), cohort, id)
redis.call('SADD', runs, run)
if notice then redis.call('XDEL', verdicts(run), notice) end
redis.call('XDEL', dead, ARGV[3])
count_letter(run, -1)
return 'replayed'
"""
)

# ARGV: entries in `dead`. Returns how many there were.
PURGE = (
    _SHARED
    + """
local count = 0
for place = 2, #ARGV do
  local letter = entry(dead, ARGV[place])
  if letter then
    redis.call('XDEL', dead, ARGV[place])
    count_letter(field(letter, 'run'), -1)
    count = count + 1
  end
end
return count
"""
)

# ARGV: after how many ms without a word a worker counts as gone. Returns entries, those at a worker, dead letters,
# workers, age of the oldest entry in ms (-1: none), then, of each run, name, waiting, in flight, answered, dead, age.
STATUS = (
    _SHARED
    + """
local at = now()
local function age(id)
  return math.max(0, at - tonumber(string.match(id, '%d+')))
end
local held, in_flight, live = {}, 0, redis.call('ZCOUNT', workers, at - ARGV[2], '+inf')
local pending = redis.pcall('XPENDING', cohorts, group, '-', '+', 1000000)
if not pending.err then
  for _, each in ipairs(pending) do
    if each[2] ~= nobody then
      held[each[1]] = true
      in_flight = in_flight + 1
    end
  end
end
local first = redis.call('XRANGE', cohorts, '-', '+', 'COUNT', 1)[1]
local found = {redis.call('XLEN', cohorts), in_flight, redis.call('XLEN', dead), live, first and age(first[1]) or -1}
local names = {}
for _, run in ipairs(redis.call('SMEMBERS', runs)) do names[run] = true end
for _, run in ipairs(redis.call('HKEYS', letters)) do names[run] = true end
for run in pairs(names) do
  local waiting, at_worker, answered, oldest = 0, 0, 0, -1
  for _, value in ipairs(redis.call('HVALS', known(run))) do
    if string.find(value, '^answered') then
      answered = answered + 1
    elseif not string.find(value, ':') then
      if held[value] then at_worker = at_worker + 1 else waiting = waiting + 1 end
      oldest = math.max(oldest, age(value))
    end
  end
  local buried = tonumber(redis.call('HGET', letters, run) or 0)
  for _, value in ipairs({run, waiting, at_worker, answered, buried, oldest}) do found[#found + 1] = value end
end
return found
"""
)
