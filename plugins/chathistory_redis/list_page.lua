-- Returns a page of the listing of a scope, newest first.
--
-- KEYS  index of the scope, scopes of its tag
-- ARGV  number of heads; and, to continue below an entry, its time and id
-- Returns {time and id of the last examined entry (both '' at the end of the index), {id, time, head}, ...}. In place
-- of a damaged head is a report of damage, which does not count as a head. A report alone means a damaged index.
local index, scopes, want = KEYS[1], KEYS[2], tonumber(ARGV[1])
local MOST = want + 1000 -- entries to examine: missing conversations do not count, and the server has other clients
local wrong = check_index(index)
if wrong then return wrong end

-- Returns the rank of the first entry below (time, id); several entries may have the same time.
local function rank_below(time, id)
  local low = redis.call('ZCOUNT', index, '(' .. time, '+inf')
  local high = redis.call('ZCOUNT', index, time, '+inf')
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = redis.call('ZREVRANGE', index, middle, middle)[1]
    if is_above(other, id) or other == id then low = middle + 1 else high = middle end
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
    local head, start = open_head(index .. ':' .. id)
    local answer = head or check_exists(index, id)
    if type(answer) == 'table' and answer.err then return to_error_reply(answer) end
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

-- Remove what the server has expired or evicted from the index; this fails on a replica and without the right to write.
for _, id in ipairs(gone) do redis.pcall('ZREM', index, id) end
if #gone > 0 and redis.pcall('EXISTS', index) == 0 then
  redis.pcall('SREM', scopes, string.sub(index, #scopes + 2))
end
return found
