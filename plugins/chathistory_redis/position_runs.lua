-- Reads the positions in the elements of a list.
--
-- KEYS  conversation
-- ARGV  token of its content; index of the first element to examine; bytes after which to stop
-- Returns {index of the next element to examine, index, position, count, index, ...}: runs of elements with consecutive
-- positions. Position -1: no line break, as in records of an earlier form; -2: anything else. Nil if the list has
-- changed.
local key, at, bytes_left = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if compute_token(key) ~= ARGV[1] then return false end
local found, chunk = {0}, 8
local index, position, count = at, nil, 0
repeat
  local elements = redis.call('LRANGE', key, at, at + chunk - 1)
  for _, element in ipairs(elements) do
    local parsed = string.match(element, '^[^\n]*\n(%d+)$')
    if parsed and #parsed <= 15 then
      parsed = tonumber(parsed)
    else
      parsed = string.find(element, '\n', 1, true) and -2 or -1
    end
    if position and (parsed == position and parsed < 0 or position >= 0 and parsed == position + count) then
      count = count + 1
    else
      if position then
        for _, number in ipairs({index, position, count}) do found[#found + 1] = number end
      end
      index, position, count = at, parsed, 1
    end
    bytes_left = bytes_left - #element
    at = at + 1
  end
  chunk = math.min(chunk * 2, 1024)
until #elements == 0 or bytes_left <= 0
if position then
  for _, number in ipairs({index, position, count}) do found[#found + 1] = number end
end
found[1] = at
return found
