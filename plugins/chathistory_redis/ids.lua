-- Some of the ids of a scope, in no order.
--
-- KEYS  index of the scope
-- ARGV  cursor ('0' to begin)
-- Returns {cursor to go on with ('0': that was all), id, ...}; an id may come more than once.
local reply = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', 500)
local found = {reply[1]}
for at = 1, #reply[2], 2 do
  local id = reply[2][at]
  if redis.call('EXISTS', KEYS[1] .. ':' .. id) == 1 then found[#found + 1] = id end
end
return found
