-- Whether everything is allowed here that the store does, and whether this server throws data away.
--
-- KEYS  conversation, index of its scope, scopes of its tag
-- Returns {name of a command that is not allowed or '', what the server evicts when memory is full or ''}.
local key, index, scopes = KEYS[1], KEYS[2], KEYS[3]
redis.call('ZCARD', index)
local due = {
  {'LINDEX', key, 0}, {'LLEN', key}, {'LRANGE', key, 0, 0}, {'LSET', key, 0, ''}, {'LTRIM', key, 0, 0},
  {'RPUSH', key, ''}, {'EXISTS', key}, {'PERSIST', key}, {'PEXPIRE', key, 1}, {'TYPE', key}, {'UNLINK', key},
  {'ZADD', index, 0, ''}, {'ZCOUNT', index, 0, 0}, {'ZRANGE', index, 0, 0}, {'ZREM', index, ''},
  {'ZREVRANGE', index, 0, 0}, {'ZSCAN', index, 0}, {'SADD', scopes, ''}, {'SMEMBERS', scopes}, {'SREM', scopes, ''},
}
local denied = ''
for _, command in ipairs(redis.acl_check_cmd and due or {}) do -- which Redis has from 7.0 on
  if denied == '' and not redis.acl_check_cmd(unpack(command)) then denied = command[1] end
end
local memory = redis.pcall('INFO', 'memory')
local limit, policy = '0', ''
if type(memory) == 'string' then
  limit = string.match(memory, 'maxmemory:(%d+)') or '0'
  policy = string.match(memory, 'maxmemory_policy:([%w-]+)') or ''
end
return {denied, (limit == '0' or policy == 'noeviction') and '' or policy}
