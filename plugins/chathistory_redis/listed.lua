-- Comes before every script that enters a conversation into its index and into the scopes of its tag.
--
-- A key of theirs that holds something else is left as it is: that harms the listing, which says so, and no
-- conversation. Returns any other error of the server; nil if all is well.
local function listed(index, scopes, updated, id)
  for _, command in ipairs({
    {'SADD', scopes, string.sub(index, #scopes + 2)},
    {'ZADD', index, updated, id},
  }) do
    local done = redis.pcall(unpack(command))
    if type(done) == 'table' and not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
  end
end

