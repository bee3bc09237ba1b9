"""The C around the blocks: where a block's samples lie in memory, threads, and the sums of all."""

# The samples are cut into chunks. Their sums are added up in order: the same bits come out of any
# number of threads. Within a block sums are kept in the arrays' own type, one a lane of a vector;
# those of blocks are added in double. A chunk of sums is some microseconds' work: eight blocks, or
# one where there are so few samples that threads would have unequal shares.
DRIVER = """
enum { CHUNK = 8 * BLOCK, FEW = 16 * CHUNK, LARGEST = 64 * BLOCK };

typedef struct {
  int64_t dims;
  const int64_t *shape;
  const T *const *data;
  const int64_t *strides;  /* in numbers, dims for each argument */
} Samples;

/* Numbers start to start + count of a strided array, in a row. */
static void gather(const Samples *all, int argument, int64_t start, int64_t count, T *to) {
  const int64_t last = all->dims - 1, *shape = all->shape;
  const int64_t *stride = all->strides + argument * all->dims;
  const T *from = all->data[argument];
  int64_t index[all->dims], rest = start, done = 0;
  for (int64_t d = last; d >= 0; d--) {
    index[d] = rest % shape[d];
    rest /= shape[d];
    from += index[d] * stride[d];
  }
  while (done < count) {
    int64_t run = shape[last] - index[last];
    if (run > count - done) run = count - done;
    for (int64_t i = 0; i < run; i++) to[done + i] = from[i * stride[last]];
    done += run;
    from += run * stride[last];
    index[last] += run;
    for (int64_t d = last; d > 0 && index[d] == shape[d]; d--) {
      from += stride[d - 1] - shape[d] * stride[d];
      index[d] = 0;
      index[d - 1]++;
    }
  }
}

/* 0: the same number everywhere, 1: in a row already, 2: neither. */
static int layout(const Samples *all, int argument) {
  const int64_t *stride = all->strides + argument * all->dims;
  int64_t in_a_row = 1;
  int row = 1, same = 1;
  for (int64_t d = all->dims - 1; d >= 0; d--) {
    if (all->shape[d] == 1) continue;
    row &= stride[d] == in_a_row;
    same &= stride[d] == 0;
    in_a_row *= all->shape[d];
  }
  return same ? 0 : row ? 1 : 2;
}

static void chunk(const Samples *all, const int *layouts, int64_t start, int64_t size,
                  int64_t count_of_all, T *const *out, double *sums) {
  int64_t end = start + size;
  T room[ARGUMENTS][BLOCK];
  const T *in[ARGUMENTS];
  T *to[OUTPUTS];
  if (end > count_of_all) end = count_of_all;
  for (int a = 0; a < ARGUMENTS; a++) {
    in[a] = a < SHARED ? all->data[a] : room[a];
    if (a >= SHARED && layouts[a] == 0)
      for (int64_t i = 0; i < BLOCK && i < end - start; i++) room[a][i] = *all->data[a];
  }
  for (; start < end; start += BLOCK) {
    const int64_t count = end - start < BLOCK ? end - start : BLOCK;
    double own[SUMS];
    for (int a = SHARED; a < ARGUMENTS; a++) {
      if (layouts[a] == 1) in[a] = all->data[a] + start;
      if (layouts[a] == 2) gather(all, a, start, count, room[a]);
    }
    for (int o = 0; o < OUTPUTS && !SUMMED; o++) to[o] = out[o] + start;
    if (usual_block(count, in, to, own) > 0) any_block(count, in, to, own);
    for (int s = 0; s < SUMS; s++) sums[s] += own[s];
  }
}

/* Sums must not depend on the number of threads. What is stored does not, and longer runs of memory
   are written faster: a quarter of a thread's share. */
static int64_t chunk_size(int64_t count, int threads) {
  const int64_t quarter = count / (4 * (int64_t)threads) / BLOCK * BLOCK;
  if (SUMMED) return count < FEW ? BLOCK : CHUNK;
  return quarter < BLOCK ? BLOCK : quarter > LARGEST ? LARGEST : quarter;
}

/* Outputs sample by sample; if they are summed, their means in a row, at out[0].
   0; 1 without memory for the sums; 2 if something that is watched or summed is not finite. */
int run(int64_t count, int64_t dims, const int64_t *shape, const T *const *data,
        const int64_t *strides, T *const *out, int threads) {
  const Samples all = {dims, shape, data, strides};
  const int64_t size = chunk_size(count, threads), chunks = (count + size - 1) / size;
  double few[SUMS] = {0}, *parts = chunks > 1 ? calloc(chunks, sizeof few) : few;
  int layouts[ARGUMENTS], finite = 1;
  if (!parts) return 1;
  for (int a = 0; a < ARGUMENTS; a++) layouts[a] = layout(&all, a);
  if (threads > chunks) threads = (int)chunks;
  if (threads > 1) {
    #pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t c = 0; c < chunks; c++)
      chunk(&all, layouts, c * size, size, count, out, parts + c * SUMS);
  } else {  /* not a word to OpenMP, which does not live on in a forked process */
    for (int64_t c = 0; c < chunks; c++)
      chunk(&all, layouts, c * size, size, count, out, parts + c * SUMS);
  }
  for (int s = 0; s < SUMS; s++) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += parts[c * SUMS + s];
    if (s < SUMS - 1) out[0][s] = (T)(sum / count);
    finite &= isfinite(sum) != 0;
  }
  if (parts != few) free(parts);
  return finite ? 0 : 2;
}
"""
