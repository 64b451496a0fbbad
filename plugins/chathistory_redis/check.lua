-- Checks that the user may run every command of the store, that the commands work as in Redis, and that the server
-- does not evict.
--
-- KEYS  conversation, index of its scope, scopes of its tag, a key that is created and removed here
-- Returns {name of a command that is not allowed or '', eviction policy if the server evicts or '', name of a command
-- that works differently than in Redis or ''}.
local key, index, scopes, scratch = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
redis.call('ZCARD', index)
local needed = {
  {'LINDEX', key, 0}, {'LLEN', key}, {'LRANGE', key, 0, 0}, {'LSET', key, 0, ''}, {'LTRIM', key, 0, 0},
  {'RPUSH', key, ''}, {'EXISTS', key}, {'PERSIST', key}, {'PEXPIRE', key, 1}, {'TYPE', key}, {'UNLINK', key},
  {'ZADD', index, 0, ''}, {'ZCOUNT', index, 0, 0}, {'ZRANGE', index, 0, 0}, {'ZREM', index, ''},
  {'ZREVRANGE', index, 0, 0}, {'ZSCAN', index, 0}, {'SADD', scopes, ''}, {'SMEMBERS', scopes}, {'SREM', scopes, ''},
}
local denied = ''
for _, command in ipairs(redis.acl_check_cmd and needed or {}) do -- Redis has `acl_check_cmd` from 7.0 on
  if denied == '' and not redis.acl_check_cmd(unpack(command)) then denied = command[1] end
end
local memory = redis.pcall('INFO', 'memory')
local limit, policy = '0', ''
if type(memory) == 'string' then
  limit = string.match(memory, 'maxmemory:(%d+)') or '0'
  policy = string.match(memory, 'maxmemory_policy:([%w-]+)') or ''
end

-- Tries what the version check, the listing and the repair depend on: a server that only resembles Redis may differ.
local function find_difference()
  redis.call('UNLINK', scratch)
  if redis.call('RPUSH', scratch, 'a', 'b') ~= 2 then return 'RPUSH' end
  redis.call('LSET', scratch, -1, 'c')
  redis.call('RPUSH', scratch, 'd')
  if redis.call('LINDEX', scratch, -1) ~= 'd' then return 'LINDEX' end
  redis.call('LTRIM', scratch, 1, -1)
  if redis.call('LLEN', scratch) ~= 2 then return 'LTRIM' end
  if table.concat(redis.call('LRANGE', scratch, -2, -1), ' ') ~= 'c d' then return 'LRANGE' end
  if redis.call('PEXPIRE', scratch, 60000) ~= 1 or redis.call('PERSIST', scratch) ~= 1 then return 'PERSIST' end
  if redis.call('EXISTS', scratch, scratch .. ':') ~= 1 then return 'EXISTS' end
  local refused = redis.pcall('ZCARD', scratch)
  if type(refused) ~= 'table' or not string.find(refused.err, 'WRONGTYPE', 1, true) then return 'ZCARD' end
  if redis.call('UNLINK', scratch) ~= 1 then return 'UNLINK' end
  redis.call('ZADD', scratch, '9007199254740991', 'one', '9007199254740991', 'two', '9007199254740990', 'three')
  if table.concat(redis.call('ZREVRANGE', scratch, 0, -1), ' ') ~= 'two one three' then return 'ZREVRANGE' end
  if redis.call('ZCOUNT', scratch, '(9007199254740990', '+inf') ~= 2 then return 'ZCOUNT' end
  redis.call('UNLINK', scratch)
  return ''
end

local is_allowed = denied == ''
return {denied, (limit == '0' or policy == 'noeviction') and '' or policy, is_allowed and find_difference() or ''}
