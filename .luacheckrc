-- What a script of Redis may use. Everything else that is not a local is a misspelling.
std = 'lua51'
read_globals = { 'KEYS', 'ARGV', 'cjson', redis = { fields = { 'call', 'pcall', 'error_reply', 'sha1hex', 'acl_check_cmd' } } }
max_line_length = 120
