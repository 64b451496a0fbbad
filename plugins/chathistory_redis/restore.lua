-- Gives a conversation a new head, and each record its place in front of it.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  what stands for what was found; the new head; its time; milliseconds to live, or '';
--       what to do with the elements, from the first on: 'keep', 'drop' or 'fill', and how many, ...
-- Returns 1; or {the present head, or nil} if something else is there than what was found.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
if token_of(key) ~= ARGV[1] then
  local head, start = opened(key)
  return {start and head or false}
end
for _, name in ipairs(redis.acl_check_cmd and {'LTRIM', 'LPOP', 'RPUSH', 'PERSIST', 'UNLINK'} or {}) do
  if not redis.acl_check_cmd(name, key, 0, 0) then return redis.error_reply('NOPERM ' .. name) end
end
local refused = listed(index, scopes, ARGV[3], string.sub(key, #index + 2))
if refused then return refused end

local function filled(count) -- what is missing: no record has an element without a position
  for _ = 1, count do redis.call('RPUSH', key, '\n') end
end

if redis.call('TYPE', key).ok ~= 'list' then redis.call('UNLINK', key) end
local kept = 0
for at = 5, #ARGV, 2 do
  if ARGV[at] == 'keep' then kept = kept + 1 end
end
if kept == 1 and (ARGV[5] == 'keep' or (ARGV[5] == 'drop' and ARGV[7] == 'keep')) then -- one run: nothing has to move
  local first = ARGV[5] == 'keep' and 0 or tonumber(ARGV[6])
  local count = tonumber(ARGV[5] == 'keep' and ARGV[6] or ARGV[8])
  redis.call('LTRIM', key, first, first + count - 1)
  for at = 5, #ARGV, 2 do
    if ARGV[at] == 'fill' then filled(tonumber(ARGV[at + 1])) end
  end
else -- once around: each element goes from the front to the back, or away
  redis.call('LMOVE', key, key, 'LEFT', 'RIGHT') -- if that is not allowed, nothing has changed yet
  redis.call('LMOVE', key, key, 'RIGHT', 'LEFT')
  for at = 5, #ARGV, 2 do
    local count = tonumber(ARGV[at + 1])
    if ARGV[at] == 'fill' then
      filled(count)
    elseif ARGV[at] == 'drop' then
      for _ = 1, count do redis.call('LPOP', key) end
    else
      for _ = 1, count do redis.call('LMOVE', key, key, 'LEFT', 'RIGHT') end
    end
  end
end
redis.call('RPUSH', key, ARGV[2])
if ARGV[4] ~= '' then redis.call('PEXPIRE', key, ARGV[4]) else redis.call('PERSIST', key) end
return 1
