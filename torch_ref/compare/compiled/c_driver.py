"""The C around the formulas: block after block, counted by error over bound, the worst kept."""

HEAD = """#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef double T;
enum {{ ARGUMENTS = {arguments}, QUANTITIES = {quantities}, ELEMENTS = {elements}, SUMS = {sums},
       ROOM = {room}, BLOCK = {block}, ROW = BLOCK + 8, ENDS = {ends},
       LOOKED_AT = {looked_at}, AT_ONCE = {at_once} }};
#define PRODUCT {product}  /* of AT_ONCE numbers of `lost`; compilers make no vectors of a loop */
"""
DATA = """
static const int quantity_of[] = {{{quantity_of}}}, place_of[] = {{{place_of}}};
static const int manual_of[] = {{{manual_of}}}, numbers_of[] = {{{numbers_of}}};
"""
# found: of each element, what `Element.looked_at` lists.
BLOCK_OF = """
static void block(int64_t count, const T *const *in, T (*room)[ROW], T (*found)[ROW],
                  double *sums) {{
  {arguments}
  T {sums};
{loops}
  for (int64_t i = 0; i < count; i++) {{ {rest} }}
  {added}
}}
"""
# limits: where the histogram's bins end that rounding may fill. One loop keeps all counts in
# registers.
TALLY = """
/* How many are decided, and how many of these lie within each limit. */
static void tally(int64_t count, const T *judged, int64_t *counts) {{
  T decided = 0, {zeros};
  #pragma omp simd reduction(+ : decided, {names})
  for (int64_t i = 0; i < count; i++) {{
    const T ratio = judged[i];
    decided += ratio >= 0 ? (T)1 : (T)0;
    {within}
  }}
  const T undecided = count - decided;
  counts[ENDS] += (int64_t)decided;
  {counted}
}}
"""
DRIVER = """
enum { JUDGED, REFERENCE, TOLERANCE, LOST_MANUAL, LOST_REFERENCE };
typedef struct { double ratio, manual, reference, tolerance; } Worst;

/* The decimal digits that are left where these parts are lost, none below 1e-16: the product of so
   many is a normal number, and one logarithm does for all. */
static double digits(int64_t count, T *lost) {
  T sum = 0;
  for (int64_t i = count; i < BLOCK; i++) lost[i] = 1;
  #pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < BLOCK / AT_ONCE; i++) sum += natural_logarithm(PRODUCT);
  return sum / -2.302585092994045684;
}

/* The first of the numbers with the largest ratio, in the order of the cases. */
static void look_for_worst(int64_t start, int64_t count, int e, const T *const *in,
                           T (*found)[ROW], Worst *worst, int64_t *places) {
  const T *judged = found[JUDGED];
  const int q = quantity_of[e];
  T largest = -2;
  #pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; i++) largest = judged[i] > largest ? judged[i] : largest;
  if (largest < worst[q].ratio) return;
  int64_t i = 0;
  while (judged[i] != largest) i++;
  const int64_t place = (start + i) * numbers_of[q] + place_of[e];
  if (largest == worst[q].ratio && place > places[q]) return;
  worst[q] = (Worst){largest, in[manual_of[e]][i], found[REFERENCE][i], found[TOLERANCE][i]};
  places[q] = place;
}

/* counts: ENDS + 1 of each quantity, as by `tally`; left: the digits of its two sides. 1 where
   there is no memory. */
int run(int64_t all, const T *const *in, double *sums, int64_t *counts, double (*left)[2],
        Worst *worst, int64_t *places) {
  T (*room)[ROW] = aligned_alloc(64, (ROOM + LOOKED_AT * ELEMENTS) * sizeof *room);
  if (!room) return 1;
  T (*found)[ROW] = room + ROOM;
  for (int q = 0; q < QUANTITIES; q++) worst[q].ratio = -2;
  for (int64_t start = 0; start < all; start += BLOCK) {
    const int64_t count = all - start < BLOCK ? all - start : BLOCK;
    const T *here[ARGUMENTS];
    for (int a = 0; a < ARGUMENTS; a++) here[a] = in[a] + start;
    block(count, here, room, found, sums);
    for (int e = 0; e < ELEMENTS; e++) {
      T (*of_element)[ROW] = found + LOOKED_AT * e;
      const int q = quantity_of[e];
      tally(count, of_element[JUDGED], counts + q * (ENDS + 1));
      left[q][0] += digits(count, of_element[LOST_MANUAL]);
      left[q][1] += digits(count, of_element[LOST_REFERENCE]);
      look_for_worst(start, count, e, here, of_element, worst, places);
    }
  }
  free(room);
  return 0;
}
"""
