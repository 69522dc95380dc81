-- needs: args
--
-- Held: what GitHub's limits and refusals hold back.
--
-- `credential:{account}:limited`  HASH  until (ms), why, whole (it holds for every owner that the credential serves),
-- probe (until when one call tries whether it is over), refused_since, late. An account is a credential, or
-- `{credential}/{owner}` for an App's installation. The hash stays after `until`, until a call succeeds.

-- what is held for longer was written while Redis's clock was ahead: GitHub's hour is the longest that there is
local MOST_HELD_MS = 7200000

-- The keys that can hold the calls of a credential at an owner, and whether each does so only as a whole.
local function limits_at(credential, owner)
  local keys = { { key = 'credential:' .. credential .. ':limited', as_a_whole = owner ~= nil } }
  if owner then keys[2] = { key = 'credential:' .. credential .. '/' .. string.lower(owner) .. ':limited' } end
  return keys
end

-- Until when the calls of a credential at an owner are held back, and why; nil where they are not.
local function held_back(credential, owner)
  local till, why
  for _, of in ipairs(limits_at(credential, owner)) do
    local at, words, whole = fields(of.key, 'until', 'why', 'whole')
    at = tonumber(at)
    if at and at > now and at <= now + MOST_HELD_MS and (whole or not of.as_a_whole) and at > (till or 0) then
      till, why = at, words
    end
  end
  return till, why
end
