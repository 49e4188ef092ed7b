-- Arguments: the API key; the file of the body, in which @ stands for a number that no other request has; requests a second, 0 for
-- as many as there can be; the connections. With a rate, each connection takes the next moment of one even timetable
-- when it has its answer, so that the load does not slow down with the answers as long as some connection is free.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *); ]]
local clock = ffi.new("moment")

local function now_ms()
  ffi.C.clock_gettime(1, clock)
  return tonumber(clock.s) * 1000 + tonumber(clock.ns) / 1e6
end

local parts, turn, every_ms, due = {}

function init(arguments)
  local file = assert(io.open(arguments[2], "rb"))
  for part in (file:read("*a") .. "@"):gmatch("([^@]*)@") do
    parts[#parts + 1] = part
  end
  file:close()
  turn = math.floor(now_ms()) % 1e9 * 1000
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. arguments[1]
  local rate = tonumber(arguments[3])
  if rate > 0 then
    every_ms, due = 1000 / rate, now_ms() + 100
    delay = function()
      due = due + every_ms
      return math.max(0, math.floor(due - now_ms() + 0.5))
    end
  end
end

function request()
  turn = turn + 1
  return wrk.format(nil, nil, nil, table.concat(parts, string.format("%.0f", turn)))
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "failed": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, failed, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
