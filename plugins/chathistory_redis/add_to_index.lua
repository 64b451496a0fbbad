-- Prepended to every script that adds a conversation to its index, and its scope to the scopes of its tag.
--
-- A key of the index with a wrong type is left as it is: the listing reports it, and no conversation is affected.
-- Returns any other error of the server; nil on success.
local function add_to_index(index, scopes, updated, id)
  for _, command in ipairs({
    {'SADD', scopes, string.sub(index, #scopes + 2)},
    {'ZADD', index, updated, id},
  }) do
    local done = redis.pcall(unpack(command))
    if type(done) == 'table' and not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
  end
end

