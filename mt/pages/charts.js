'use strict'
// A line through the point nearest to the pointer, and the values there; arrow keys move it, Escape takes it away.
for (const plot of document.querySelectorAll('.plot')) {
  const {high, step, series} = JSON.parse(plot.dataset.values)
  const places = [...new Set(series.flatMap(one => one.x))].sort((a, b) => a - b)
  const cursor = document.createElement('div'), tip = document.createElement('output')
  cursor.className = 'cursor'
  tip.className = 'tip'
  let index = places.length

  const nearest = (places, x) =>
    places.reduce((best, place, index) => Math.abs(place - x) < Math.abs(places[best] - x) ? index : best, 0)
  const written = x => x.toLocaleString('en') + (step > 1 ? `–${(x + step - 1).toLocaleString('en')}` : '')

  function show(chosen) {
    index = Math.min(Math.max(chosen, 0), places.length - 1)
    const x = places[index], at = high ? (x + (step > 1 ? step / 2 : 0)) / high : .5
    tip.replaceChildren(...series.map(one => {
      const line = document.createElement('div'), found = nearest(one.x, x)
      line.textContent = `${one.label} ${one.shown[found]} at ${written(one.x[found])}`.trim()
      return line
    }))
    cursor.style.left = `${at * 100}%`
    plot.append(cursor, tip)
    const half = tip.offsetWidth / 2, box = plot.getBoundingClientRect()
    const room = document.documentElement.clientWidth - box.left - half - 4
    tip.style.left = `${Math.max(Math.min(at * box.width, room), half + 4 - box.left)}px`
  }

  function hide() {
    cursor.remove()
    tip.remove()
  }

  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect()
    show(nearest(places, (event.clientX - box.left) / box.width * high))
  })
  plot.addEventListener('pointerleave', hide)
  plot.addEventListener('blur', hide)
  plot.addEventListener('focus', () => { if (plot.matches(':focus-visible')) show(index) })
  plot.addEventListener('keydown', event => {
    const moves = {ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: places.length - 1}
    if (event.key === 'Escape') hide()
    if (!(event.key in moves)) return
    event.preventDefault()
    show(moves[event.key])
  })
}
