-- needs: nothing
--
-- What every operation is given: `args`, the one JSON object in ARGV[1], and `now`.
--
-- Ids are strings in `args`: a Lua number holds 53 bits, a GitHub id up to 63. Times are milliseconds by Redis's own
-- clock, so that no worker's clock matters; a test passes `now`.

local call = redis.call
local args = cjson.decode(ARGV[1])
local now = args.now
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function fields(key, ...)
  return unpack(call('HMGET', key, ...))
end
