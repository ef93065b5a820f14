package scoreboard

// layersBytes is the size of Layers.
const layersBytes = 2 * lineBytes

// Layers of routes, the indices of Layers. A number is never given another meaning.
const (
	LayerAsync = iota
	LayerSync
	LayerCompute
	knownLayers
	roomLayers = 4
)

// LayerNames are what operators call them.
var LayerNames = [knownLayers]string{"async", "sync", "compute"}

// Layers is what a worker says of each layer, as it lies in memory.
type Layers [roomLayers]LayerFields

// LayerFields is what it says of one. Running and Waiting are zeroed when the row is settled.
type LayerFields struct {
	Running Gauge   // requests
	Waiting Gauge   // those that wait for a place
	Refused Counter // those that were refused, as too many were there, or would be for too long
	_       uint64
}

// LayerState is what one or more workers say of one layer.
type LayerState struct {
	Running, Waiting int64
	Refused          uint64
}

// LayerStates is the sum over all rows, by layer.
func (b *Board) LayerStates() (sum [knownLayers]LayerState) {
	for _, r := range b.rows {
		if !r.ever() {
			continue
		}
		for i := range sum {
			l := &r.Layers[i]
			sum[i].Running += l.Running.Load()
			sum[i].Waiting += l.Waiting.Load()
			sum[i].Refused += l.Refused.Load()
		}
	}
	return sum
}

// settle zeroes the gauges.
func (l *Layers) settle() {
	for i := range l {
		l[i].Running.Set(0)
		l[i].Waiting.Set(0)
	}
}

// refused are the counters, by layer.
func (l *Layers) refused() (n [knownLayers]uint64) {
	for i := range n {
		n[i] = l[i].Refused.Load()
	}
	return n
}
