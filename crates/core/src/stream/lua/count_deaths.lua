-- count_deaths: counts one more worker that died over each of these entries. Returns how many they are now for the last
-- entry, or 0.
--
-- ARGV: stream, seconds after which counts are forgotten, ids of the entries

local deaths, count = ARGV[1] .. ':deaths', 0
for i = 3, #ARGV do
  -- Only what is pending is counted: what somebody has handled meanwhile would leave its count behind.
  if #redis.call('XPENDING', ARGV[1], 'workers', ARGV[i], ARGV[i], 1) > 0 then
    count = redis.call('HINCRBY', deaths, ARGV[i], 1)
  end
end
redis.call('EXPIRE', deaths, ARGV[2])
return count
