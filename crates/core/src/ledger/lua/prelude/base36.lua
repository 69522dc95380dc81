-- needs: nothing
--
-- Numbers in base 36, as epochs and sequences stand in the names of runners.

local DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'

local function base36(n)
  local text = ''
  repeat
    local digit = n % 36
    text = string.sub(DIGITS, digit + 1, digit + 1) .. text
    n = (n - digit) / 36
  until n == 0
  return text
end
