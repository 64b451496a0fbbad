-- Lists some ids of a scope, the least recently written first.
--
-- A conversation that is written meanwhile moves towards the end of this walk. So no conversation is missed, but one may
-- come twice. A point in this order means the same on every server, unlike the cursor of ZSCAN: a walk survives a
-- failover.
--
-- KEYS  index of the scope
-- ARGV  number of entries to examine; and, to continue after an entry, its time and id
-- Returns {time and id of the last examined entry (both '' at the end of the index), id, ...}; or a report of damage.
local index, most = KEYS[1], tonumber(ARGV[1])
local wrong = check_index(index)
if wrong then return wrong end

-- Returns the rank of the first entry after (time, id); several entries may have the same time.
local function rank_after(time, id)
  local low = redis.call('ZCOUNT', index, '-inf', '(' .. time)
  local high = redis.call('ZCOUNT', index, '-inf', time)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_above(redis.call('ZRANGE', index, middle, middle)[1], id) then high = middle else low = middle + 1 end
  end
  return low
end

local rank = ARGV[2] and rank_after(ARGV[2], ARGV[3]) or 0
local entries = redis.call('ZRANGE', index, rank, rank + most - 1, 'WITHSCORES')
local found = {'', ''}
if #entries == 2 * most then
  found[1], found[2] = entries[#entries], entries[#entries - 1]
end
for at = 1, #entries, 2 do
  local answer = check_exists(index, entries[at])
  if type(answer) == 'table' then return to_error_reply(answer) end
  if answer == 2 then found[#found + 1] = entries[at] end
end
return found
