-- A page of the listing of a scope, newest first.
--
-- KEYS  index of the scope, scopes of its tag
-- ARGV  number of heads; and, to go on below a place, its time and id
-- Returns {time and id of the last entry looked at (both '' if that was the last one of all), {id, time, head}, ...}.
-- In the place of a head stands what is damaged, which does not count; so does what is returned if the index is.
local index, scopes, want = KEYS[1], KEYS[2], tonumber(ARGV[1])
local MOST = want + 1000 -- entries to look at: what is gone is not counted, and this server has others to serve
local wrong = no_index(index)
if wrong then return wrong end

-- The rank of the first entry below (time, id): some may have the same time.
local function rank_below(time, id)
  local low = redis.call('ZCOUNT', index, '(' .. time, '+inf')
  local high = redis.call('ZCOUNT', index, time, '+inf')
  while low < high do
    local middle = math.floor((low + high) / 2)
    local there = redis.call('ZREVRANGE', index, middle, middle)[1]
    if above(there, id) or there == id then low = middle + 1 else high = middle end
  end
  return low
end

local rank = ARGV[2] and rank_below(ARGV[2], ARGV[3]) or 0
local found, gone, looked, count = {'', ''}, {}, 0, 0
local entries
repeat
  local step = want - count
  entries = redis.call('ZREVRANGE', index, rank + looked, rank + looked + step - 1, 'WITHSCORES')
  for at = 1, #entries, 2 do
    local id = entries[at]
    local head, start = opened(index .. ':' .. id)
    local answer = head or there(index, id)
    if type(answer) == 'table' and answer.err then return refusal(answer) end
    if answer == 1 then
      gone[#gone + 1] = id
    else
      found[#found + 1] = {id, entries[at + 1], head or ''}
      if start then count = count + 1 end
    end
  end
  looked = looked + #entries / 2
  local full = count >= want
  if #entries == 2 * step and (full or looked >= MOST) then
    found[1], found[2] = entries[#entries], entries[#entries - 1]
  end
until full or looked >= MOST or #entries < 2 * step

-- What the server has expired or evicted leaves the index here; not on a replica, nor without the right to write.
for _, id in ipairs(gone) do redis.pcall('ZREM', index, id) end
if #gone > 0 and redis.pcall('EXISTS', index) == 0 then
  redis.pcall('SREM', scopes, string.sub(index, #scopes + 2))
end
return found
