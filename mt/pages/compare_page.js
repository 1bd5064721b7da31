'use strict'
// Smoothing: a line is drawn through a moving average of its points, the measured one pale behind it. Lines with dots,
// whose points are few, stay as they are: their average would only lag behind.
const smoothing = document.getElementById('smoothing')
const many = [...document.querySelectorAll('.plot .line')].filter(line => !line.nextElementSibling?.matches('.dot'))
const lines = many.map(line => {
  const measured = line.cloneNode()
  measured.classList.add('measured')
  const points = line.getAttribute('d').slice(1).split('L').map(place => place.split(' ').map(Number))
  return {line, measured, points}
})

function smoothed(points, weight) {
  let sum = 0, all = 0 // of the points so far, and of their weights, so that the first count no more than others
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y
    all = weight * all + 1 - weight
    return [x, (sum / all).toFixed(1)]
  })
}

if (smoothing) {
  smoothing.hidden = false
  smoothing.addEventListener('input', event => {
    const weight = +event.target.value
    for (const {line, measured, points} of lines) {
      if (weight) line.before(measured)
      else measured.remove()
      const path = 'M' + smoothed(points, weight).map(place => place.join(' ')).join('L')
      line.setAttribute('d', weight ? path : measured.getAttribute('d'))
    }
  })
}

// The values under the pointer have the colours of their runs; charts.js, which listens first, has just written them.
for (const plot of document.querySelectorAll('.plot')) {
  const kinds = [...plot.querySelectorAll('.line')].map(line => [...line.classList].slice(1)) // before any is smoothed
  const colour = () => plot.querySelectorAll('.tip div').forEach((value, at) => value.classList.add(...kinds[at]))
  for (const name of ['pointermove', 'keydown', 'focus']) plot.addEventListener(name, colour)
}
