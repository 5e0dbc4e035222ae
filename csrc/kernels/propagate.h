// What a propagation step does with a summed row: the affine combination of APPNP, and the
// correction of a constrained step. Included once per level, inside the level's anonymous
// namespace.

void combine_span(const float* x, float* y, int64_t n, float keep, float teleport) {
  for (int64_t j = 0; j < n; ++j) y[j] = y[j] * keep + x[j] * teleport;
}

void change_span(const float* stepped, const float* state, float* change, int64_t n) {
  for (int64_t j = 0; j < n; ++j) change[j] = stepped[j] - state[j];
}

void correct_span(const CorrectArgs& a, int64_t n) {
  if (a.laplacian) {
    for (int64_t j = 0; j < n; ++j) {
      a.state[j] = a.stepped[j] + (a.stepped[j] - a.state[j] - a.spread[j]) * a.coefficient;
    }
  } else {
    for (int64_t j = 0; j < n; ++j) {
      a.state[j] = a.stepped[j] + a.spread[j] * a.coefficient;
    }
  }
}
