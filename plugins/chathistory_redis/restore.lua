-- Gives a conversation a new head, and orders its records before it.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- ARGV  token of the content that was found; the new head; its time; milliseconds to live, or '';
--       what to do with the elements, from the first on: 'keep', 'drop' or 'fill', and how many, ...
-- Returns 1; or {the current head, or nil} if the content has changed.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
if compute_token(key) ~= ARGV[1] then
  local head, start = open_head(key)
  return {start and head or false}
end
for _, name in ipairs(redis.acl_check_cmd and {'LTRIM', 'LPOP', 'RPUSH', 'PERSIST', 'UNLINK'} or {}) do
  if not redis.acl_check_cmd(name, key, 0, 0) then return redis.error_reply('NOPERM ' .. name) end
end
local refused = add_to_index(index, scopes, ARGV[3], string.sub(key, #index + 2))
if refused then return refused end

local function append_missing(count) -- an element without a position stands for a missing record
  for _ = 1, count do redis.call('RPUSH', key, '\n') end
end

if redis.call('TYPE', key).ok ~= 'list' then redis.call('UNLINK', key) end
local kept = 0
for at = 5, #ARGV, 2 do
  if ARGV[at] == 'keep' then kept = kept + 1 end
end
if kept == 1 and (ARGV[5] == 'keep' or (ARGV[5] == 'drop' and ARGV[7] == 'keep')) then -- one run: nothing needs to move
  local first = ARGV[5] == 'keep' and 0 or tonumber(ARGV[6])
  local count = tonumber(ARGV[5] == 'keep' and ARGV[6] or ARGV[8])
  redis.call('LTRIM', key, first, first + count - 1)
  for at = 5, #ARGV, 2 do
    if ARGV[at] == 'fill' then append_missing(tonumber(ARGV[at + 1])) end
  end
else -- rotate the list once: each element moves from the front to the back, or is removed
  redis.call('LMOVE', key, key, 'LEFT', 'RIGHT') -- fails before anything has changed if the user may not do it
  redis.call('LMOVE', key, key, 'RIGHT', 'LEFT')
  for at = 5, #ARGV, 2 do
    local count = tonumber(ARGV[at + 1])
    if ARGV[at] == 'fill' then
      append_missing(count)
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
