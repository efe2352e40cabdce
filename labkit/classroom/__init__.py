"""What a class needs: exercises that check themselves, a folder of notebooks, releases and their grading."""
