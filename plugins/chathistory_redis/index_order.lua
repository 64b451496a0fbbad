-- Prepended to every script that walks through an index: the order of its entries, and the meaning of errors.

-- Compares bytes, because Lua compares strings by the locale of the server.
local function is_above(one, other)
  for at = 1, math.min(#one, #other) do
    local a, b = string.byte(one, at), string.byte(other, at)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- Returns 2 if a conversation of this index exists, 1 if not, or an error. While a Cluster moves a slot, a key may be on
-- the other node. For one key this server would only say that it does not exist; a command with two keys, of which it
-- has one, is refused.
local function check_exists(index, id)
  return redis.pcall('EXISTS', index, index .. ':' .. id)
end

-- Returns the reply for an error: with TRYAGAIN, the client of a Cluster waits until the slot has been moved.
local function to_error_reply(answer)
  if string.find(answer.err, 'non local key', 1, true) then
    return redis.error_reply('TRYAGAIN the slot is being moved')
  end
  return answer
end

-- Returns a report of damage if the key is not an index; nil if it is one, or does not exist.
local function check_index(index)
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'zset' and kind ~= 'none' then return {'!', 'type', kind} end
end

