"""Writes the figures into the READMEs."""

from bench.readme import ALL_FIGURES, FRONT_PAGE, all_figures, front_page

if __name__ == "__main__":
    FRONT_PAGE.write_text(front_page())
    ALL_FIGURES.write_text(all_figures())
