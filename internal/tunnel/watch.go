package tunnel

import (
	"context"

	"wireguard4netns/internal/watch"
)

// Watch keeps the peers within reach while the host's network changes, until ctx
// ends.
func (t *Tunnel) Watch(ctx context.Context) {
	watch.Run(ctx, watch.Config{Engine: t.Engine, Log: t.log.Line})
}
