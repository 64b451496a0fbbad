-- Some of the ids of a scope, those written longest ago first.
--
-- A conversation that is written meanwhile goes towards the end of this walk, so that none is missed; it may come again.
-- A place in this order means the same on every server, which the cursor of a ZSCAN does not: a walk survives a failover.
--
-- KEYS  index of the scope
-- ARGV  number of entries to look at; and, to go on behind a place, its time and id
-- Returns {time and id of the last entry looked at (both '' if that was the last one of all), id, ...}; or what is
-- damaged.
local index, most = KEYS[1], tonumber(ARGV[1])
local wrong = no_index(index)
if wrong then return wrong end

-- The rank of the first entry behind (time, id): some may have the same time.
local function rank_behind(time, id)
  local low = redis.call('ZCOUNT', index, '-inf', '(' .. time)
  local high = redis.call('ZCOUNT', index, '-inf', time)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if above(redis.call('ZRANGE', index, middle, middle)[1], id) then high = middle else low = middle + 1 end
  end
  return low
end

local rank = ARGV[2] and rank_behind(ARGV[2], ARGV[3]) or 0
local entries = redis.call('ZRANGE', index, rank, rank + most - 1, 'WITHSCORES')
local found = {'', ''}
if #entries == 2 * most then
  found[1], found[2] = entries[#entries], entries[#entries - 1]
end
for at = 1, #entries, 2 do
  local answer = there(index, entries[at])
  if type(answer) == 'table' then return refusal(answer) end
  if answer == 2 then found[#found + 1] = entries[at] end
end
return found
