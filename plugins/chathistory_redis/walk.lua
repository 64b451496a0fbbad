-- Comes before every script that walks through an index: its order, and what an error on the way means.

-- Byte by byte: Lua compares by the locale of the server.
local function above(one, other)
  for at = 1, math.min(#one, #other) do
    local a, b = string.byte(one, at), string.byte(other, at)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- Whether a conversation that this index names is here: 1 it is not, 2 it is, or an error. In a Cluster whose slots are
-- being moved, what is not here yet (or no more) is not gone. About one key the server says only that it is not here; a
-- command with two keys, of which it has one, it refuses then.
local function there(index, id)
  return redis.pcall('EXISTS', index, index .. ':' .. id)
end

-- What a script returns for an error: the clients of a Cluster wait a little for a slot that is being moved.
local function refusal(answer)
  if string.find(answer.err, 'non local key', 1, true) then
    return redis.error_reply('TRYAGAIN the slot is being moved')
  end
  return answer
end

-- What a script returns at once if there is something else than an index; nil if there is one, or nothing.
local function no_index(index)
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'zset' and kind ~= 'none' then return {'!', 'type', kind} end
end

