-- Returns 1. A replica refuses it, as it refuses every script that may write; so does a full server.
return 1
