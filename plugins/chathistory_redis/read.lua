-- Reads a head and records, consistently.
--
-- KEYS  conversation
-- ARGV  start (negative: from the end), stop ('': the end), bytes after which the result ends early
-- Returns {head, position of the first record, {body, ...}, ...}, nil without a conversation, or a report of damage.
local key, limit = KEYS[1], tonumber(ARGV[3])
local head, start, stop = open_head(key)
if not start then return head end
local low = tonumber(ARGV[1])
if low < 0 then low = stop + low end
low = math.max(low, start)
local high = ARGV[2] == '' and tonumber(stop) or math.min(ARGV[2], stop)
local found = {head, string.format('%.0f', low)}
local at, last, chunk, size, count = low - start, high - start - 1, 32, 0, 0
while at <= last do
  local bodies = redis.call('LRANGE', key, at, math.min(at + chunk - 1, last))
  for nth, body in ipairs(bodies) do
    size = size + #body
    if size > limit and count + nth > 1 then -- the first record is always returned
      bodies[nth] = nil -- ends this table when it becomes a reply
      last = -1
      break
    end
  end
  found[#found + 1] = bodies
  count = count + #bodies
  at = at + chunk
  local fitting = math.floor((limit - size) / (size / math.max(count, 1) + 1)) -- about how many records still fit
  chunk = math.max(1, math.min(chunk * 4, fitting))
end
return found
