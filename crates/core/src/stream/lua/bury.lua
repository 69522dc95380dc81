-- bury: moves an entry to the dead letters. Returns 1, or 0 where the entry is not in its stream: whoever buries it a
-- second time adds nothing.
--
-- ARGV: stream, id of the entry, reason, version, letters to keep, names and values of the letter's other fields

if #redis.call('XRANGE', ARGV[1], ARGV[2], ARGV[2]) == 0 then return 0 end
local fields = { 'v', ARGV[4], 'stream', ARGV[1], 'id', ARGV[2], 'reason', ARGV[3] }
for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end
-- XADD comes before what removes: a Redis that is full refuses the whole.
redis.call('XADD', 'jit:dead', 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
redis.call('XACK', ARGV[1], 'workers', ARGV[2])
redis.call('XDEL', ARGV[1], ARGV[2])
redis.call('HDEL', ARGV[1] .. ':deaths', ARGV[2])
return 1
