//! Relations, intervals, sets, tuples, matrices, plus-minus, words and choices.

use super::{different, equal};

#[test]
fn equations() {
    equal(
        r"
        x = 5 @@ 5
        x = 5 @@ x=5
        x = 5 @@ 5 = x
        5 @@ x = 5
        y = 2x + 1 @@ 2x - y + 1 = 0
        y = 2x + 1 @@ y - 2x = 1
        2x + 3y = 6 @@ 4x + 6y = 12
        2x + 3y = 6 @@ 6 = 3y + 2x
        2x + 3y - 6 = 0 @@ -2x - 3y + 6 = 0
        x^2 + y^2 = 4 @@ y^2 = 4 - x^2
        x^2+y^2=4 @@ \frac{x^2}{4}+\frac{y^2}{4}=1
        \frac{x^2}{4}+\frac{y^2}{9}=1 @@ 9x^2 + 4y^2 = 36
        A = \frac{1}{2}bh @@ \frac{bh}{2}
        f(x) = x^2 + 1 @@ f(x) = 1 + x^2
        a = b = 3 @@ 3
        x = 1, y = 2 @@ (1, 2)
        (1,2) @@ x=1, y=2
        (x,y) = (1,2) @@ (1,2)
        ",
    );
    different(
        r"
        x = 5 @@ x = 6
        x = 5 @@ x = -5
        5 @@ x = 6
        y = 2x + 1 @@ y = x + 2
        y = 2x + 1 @@ 2x + y + 1 = 0
        2x + 3y = 6 @@ 3x + 2y = 6
        2x + 3y = 6 @@ 2x + 3y = 7
        2x + 3y = 6 @@ 2x - 3y = 6
        x^2 + y^2 = 4 @@ x^2 - y^2 = 4
        x^2 + y^2 = 4 @@ x^2 + y^2 = 2
        x = 1, y = 2 @@ (2, 1)
        x = 1, y = 2 @@ x = 2, y = 1
        2x + 3y = 6 @@ 6
        ",
    );
}

#[test]
fn inequalities_and_intervals() {
    equal(
        r"
        (1,2) @@ (1, 2)
        [1,2) @@ \left[1,2\right)
        [1,2] @@ [1.0, 2.0]
        (1,2] @@ 1 < x \le 2
        1 < x < 2 @@ (1,2)
        1 < x < 2 @@ 2 > x > 1
        1 < x < 2 @@ x \in (1,2)
        x > 3 @@ 3 < x
        x > 3 @@ (3, \infty)
        (3,\infty) @@ x > 3
        (3,\infty) @@ (3, +\infty)
        (3,\infty) @@ (3, inf)
        x \ge 3 @@ [3, \infty)
        x \ge 3 @@ x >= 3
        x \geq 3 @@ x ≥ 3
        2x > 6 @@ x > 3
        -x < -3 @@ x > 3
        x + y \le 2 @@ 2x + 2y \leq 4
        (-\infty,1)\cup(2,\infty) @@ x<1 \text{ or } x>2
        x<1 \text{ or } x>2 @@ (-\infty,1)\cup(2,\infty)
        (-\infty,1)\cup(2,\infty) @@ (2,\infty)\cup(-\infty,1)
        (-\infty,1) \cup (2,\infty) @@ (-inf, 1) U (2, inf)
        (-\infty,1) \cup (1,\infty) @@ \mathbb{R} \setminus \{1\}
        (-\infty,\infty) @@ \mathbb{R}
        [0,1] @@ \left\{ x \mid 0 \le x \le 1 \right\}
        (0,1)\cup(1,2) @@ (0,2) \setminus \{1\}
        \left[\frac12, 1\right) @@ [0.5, 1)
        x \in [2,5] @@ 2 \le x \le 5
        -3 \le x \le 3 @@ [-3,3]
        (-\infty, \sqrt{2}] @@ x \le \sqrt2
        [1,3] \cup [2,5] @@ [1,5]
        k > 1 @@ (1, \infty)
        ",
    );
    different(
        r"
        (1,2) @@ [1,2]
        (1,2) @@ (1,2]
        [1,2) @@ (1,2]
        [1,2] @@ (1,2)
        (1,2] @@ 1 \le x < 2
        (1,2) @@ (1,3)
        (1,2) @@ (-1,2)
        1 < x < 2 @@ 1 \le x \le 2
        x > 3 @@ x < 3
        x > 3 @@ x \ge 3
        x > 3 @@ x > 4
        x > 3 @@ (-\infty, 3)
        (3,\infty) @@ (-\infty, 3)
        (3,\infty) @@ [3,\infty)
        (3,\infty) @@ (3, 4)
        x + y \le 2 @@ x + y \ge 2
        x + y \le 2 @@ x - y \le 2
        (-\infty,1)\cup(2,\infty) @@ (1,2)
        (-\infty,1)\cup(2,\infty) @@ (-\infty,1]\cup[2,\infty)
        (-\infty,1)\cup(2,\infty) @@ (-\infty,1)\cap(2,\infty)
        (-\infty,1)\cup(2,\infty) @@ (-\infty,1)
        x<1 \text{ or } x>2 @@ 1<x<2
        \mathbb{R} @@ (0,\infty)
        \mathbb{R} \setminus \{1\} @@ \mathbb{R}
        ",
    );
}

#[test]
fn sets_tuples_and_lists() {
    equal(
        r"
        \{1,2,3\} @@ \{3,2,1\}
        \{1,2,3\} @@ 1,2,3
        \{1,2,3\} @@ {1, 2, 3}
        1,2,3 @@ 3,2,1
        1, 2 @@ 1 and 2
        1 \text{ and } 2 @@ 2, 1
        1, 2 @@ x = 1 \text{ or } x = 2
        1, 2 @@ x = 1, 2
        x = 1 \text{ or } x = 2 @@ 1, 2
        \{0, \frac12\} @@ \{0.5, 0\}
        \{\sqrt2, -\sqrt2\} @@ \{\pm\sqrt{2}\}
        (1,2) @@ (1,2)
        (1,2) @@ 1,2
        (1,2,3) @@ \left( 1, 2, 3 \right)
        (\frac12, -3) @@ (0.5, -3)
        (3, \frac{\pi}{2}) @@ \left(3, \frac{\pi}{2}\right)
        (0,1),(2,3) @@ (2,3),(0,1)
        \{(0,1),(2,3)\} @@ (2,3), (0,1)
        \emptyset @@ \{\}
        \emptyset @@ \varnothing
        (1,2,3,4) @@ (1, 2, 3, 4)
        -1, 0, 1 @@ 0, 1, -1
        \{1\} @@ 1
        1;2;3 @@ 1, 2, 3
        \pm 3 @@ 3, -3
        x=\pm 3 @@ -3, 3
        1\pm\sqrt2 @@ 1+\sqrt2, 1-\sqrt2
        \frac{-1 \pm \sqrt{5}}{2} @@ \frac{-1+\sqrt5}{2}, \frac{-1-\sqrt5}{2}
        \pm 3 @@ ±3
        1:2:3 @@ 1:2:3
        ",
    );
    different(
        r"
        \{1,2,3\} @@ \{1,2\}
        \{1,2,3\} @@ \{1,2,4\}
        \{1,2\} @@ \{1,2,3\}
        1,2,3 @@ 1,2
        1,2 @@ 1
        1 @@ 1,2
        (1,2) @@ (2,1)
        (1,2) @@ (1,3)
        (1,2) @@ (1,-2)
        (1,2) @@ (1,2,3)
        (1,2,3) @@ (3,2,1)
        (1,2,3) @@ 3,2,1
        (1,2) @@ 12
        (0,1),(2,3) @@ (1,0),(3,2)
        (0,1),(2,3) @@ (0,1)
        \emptyset @@ \{0\}
        \emptyset @@ 0
        \pm 3 @@ 3
        \pm 3 @@ -3
        3 @@ \pm 3
        1\pm\sqrt2 @@ 1\pm\sqrt3
        1\pm\sqrt2 @@ 1+\sqrt2
        x = 1 \text{ or } x = 2 @@ x = 1
        1:2:3 @@ 1:3:2
        ",
    );
}

#[test]
fn matrices() {
    equal(
        r"
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} @@ \begin{pmatrix}1&2\\3&4\end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} @@ \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} @@ \left(\begin{array}{c} 1 \\ 2 \end{array}\right)
        \begin{pmatrix} 1/2 \\ \sqrt{8} \end{pmatrix} @@ \begin{pmatrix} 0.5 \\ 2\sqrt{2} \end{pmatrix}
        \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix} @@ \begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \\ \frac{5}{3} \end{pmatrix}
        \begin{bmatrix} 1 & 0 \\ 0 & 1 \\ \end{bmatrix} @@ \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}
        ",
    );
    different(
        r"
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} @@ \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \\ 3 & -4 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} @@ \begin{pmatrix} 2 \\ 1 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} @@ 3
        ",
    );
}

#[test]
fn words_and_choices() {
    equal(
        r"
        \text{Monday} @@ Monday
        \text{Monday} @@ \text{monday}
        Monday @@ \textbf{Monday}
        \text{even} @@ \mathrm{even}
        (C) @@ C
        C @@ (C)
        C @@ \text{(C)}
        \text{(C)} @@ C
        C @@ \textbf{C}
        C @@ (C) 42
        \text{A, B} @@ \text{B, A}
        \text{Evelyn} @@ Evelyn
        \text{yes} @@ Yes
        5\text{ p.m.} @@ 5 \text{ pm}
        \text{ellipse} @@ \text{Ellipse}
        ",
    );
    different(
        r"
        \text{Monday} @@ Tuesday
        \text{Monday} @@ 1
        \text{even} @@ \text{odd}
        C @@ D
        C @@ (D)
        (C) @@ (B)
        C @@ \text{(A)}
        C @@ (D) 42
        \text{yes} @@ no
        \text{Evelyn} @@ \text{Carla}
        42 @@ C
        \text{ellipse} @@ \text{circle}
        ",
    );
}
