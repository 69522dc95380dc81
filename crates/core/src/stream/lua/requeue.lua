-- requeue: puts the entry of a dead letter back into its stream, and deletes the letter. Returns what became of it
-- (back | dropped | stuck | unknown), the stream that the letter names, and the new id of the entry.
--
-- ARGV: id of the letter, stream to which entries go back, stream whose entries are dropped

local letter = redis.call('XRANGE', 'jit:dead', ARGV[1], ARGV[1])[1]
if not letter then return { 'unknown', '', '' } end
local stream, was, accepted, fields = '', '', false, {}
for i = 1, #letter[2], 2 do
  local name, value = letter[2][i], letter[2][i + 1]
  if name == 'stream' then
    stream = value
  elseif name == 'id' then
    was = value
  elseif string.sub(name, 1, 6) == 'entry.' then
    fields[#fields + 1] = string.sub(name, 7)
    fields[#fields + 1] = value
    if name == 'entry.accepted' then accepted = true end
  end
end
if stream == ARGV[3] then
  redis.call('XDEL', 'jit:dead', ARGV[1])
  return { 'dropped', stream, '' }
end
if stream ~= ARGV[2] or #fields == 0 then return { 'stuck', stream, '' } end
local ms = string.match(was, '^(%d+)%-%d+$')
if ms and not accepted then
  fields[#fields + 1] = 'accepted'
  fields[#fields + 1] = ms
end
local id = redis.call('XADD', stream, '*', unpack(fields))
redis.call('XDEL', 'jit:dead', ARGV[1])
return { 'back', stream, id }
